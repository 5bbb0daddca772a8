;; Typed function references: call_ref, non-nullable references in locals, branches on null, references as 
;; parameters and results.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)

  ;; One step of the checksum: any wrong bit in either operand changes the result.
  (func $mix (param $hash i64) (param $value i64) (result i64)
    (i64.mul
      (i64.rotl (i64.xor (local.get $hash) (local.get $value)) (i64.const 29))
      (i64.const 0x9E3779B97F4A7C15)))

  ;; Prints a checksum as 16 hexadecimal digits and a newline. Uses bytes 0 to 40 of memory.
  (func $print (param $value i64)
    (local $position i32) (local $digit i32)
    (local.set $position (i32.const 31))
    (loop $next
      (local.set $digit (i32.wrap_i64 (i64.and (local.get $value) (i64.const 15))))
      (i32.store8 (local.get $position)
        (i32.add (local.get $digit)
          (select (i32.const 48) (i32.const 87) (i32.lt_u (local.get $digit) (i32.const 10)))))
      (local.set $value (i64.shr_u (local.get $value) (i64.const 4)))
      (local.set $position (i32.sub (local.get $position) (i32.const 1)))
      (br_if $next (i32.ge_u (local.get $position) (i32.const 16))))
    (i32.store8 (i32.const 32) (i32.const 10))
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 17))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))

  (type $step (func (param i64) (result i64)))
  (type $choose (func (param i64) (result (ref $step))))
  (elem declare func $half $spin $pick)

  (func $half (type $step) (i64.shr_u (local.get 0) (i64.const 1)))
  (func $spin (type $step) (param $x i64) (result i64)
    (local $turns i32)
    (local.set $turns (i32.const 6))
    (loop $again
      (local.set $x (call $mix (local.get $x) (i64.extend_i32_u (local.get $turns))))
      (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (local.get $x))
  (func $pick (type $choose) (param $x i64) (result (ref $step))
    (drop (call $spin (local.get $x)))
    (if (result (ref $step)) (i64.eqz (i64.and (local.get $x) (i64.const 3)))
      (then (ref.func $half))
      (else (ref.func $spin))))

  ;; A non-nullable local has no default value: restoring it takes a real reference.
  (func $apply (param $x i64) (param $maybe (ref null $step)) (result i64)
    (local $chosen (ref $step)) (local $chooser (ref $choose))
    (local.set $chooser (ref.func $pick))
    (local.set $chosen (call_ref $choose (local.get $x) (local.get $chooser)))
    (local.set $x (call_ref $step (local.get $x) (local.get $chosen)))
    (block $absent
      (local.set $x
        (call_ref $step (local.get $x) (br_on_null $absent (local.get $maybe))))
      (return (call_ref $step (call $spin (local.get $x)) (ref.as_non_null (local.get $maybe)))))
    (block $present (result (ref $step))
      (br_on_non_null $present (local.get $maybe))
      (return (call_ref $step (call $spin (local.get $x)) (local.get $chosen))))
    (drop)
    (unreachable))

  (func (export "_start")
    (local $i i32) (local $hash i64) (local $reference (ref null $step))
    (local.set $i (i32.const 15000))
    (loop $again
      (local.set $hash
        (call $apply (call $mix (local.get $hash) (i64.extend_i32_u (local.get $i))) (local.get $reference)))
      (if (i64.eqz (i64.and (local.get $hash) (i64.const 1)))
        (then (local.set $reference (call_ref $choose (local.get $hash) (ref.func $pick))))
        (else (local.set $reference (ref.null $step))))
      (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
    (call $print (local.get $hash))
    (call $print (i64.extend_i32_u (ref.is_null (local.get $reference)))))
)
