;; One export per kind of trap; each works for a while and prints its checksum before it traps.
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

  (type $nullary (func))
  (table $table 2 funcref)
  (elem (table $table) (i32.const 0) func $work)
  (func $work (param $seed i64) (result i64)
    (local $turns i32)
    (local.set $turns (i32.const 5000))
    (loop $again
      (local.set $seed (call $mix (local.get $seed) (i64.extend_i32_u (local.get $turns))))
      (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (call $print (local.get $seed))
    (local.get $seed))
  (func $zero (result i32) (i32.wrap_i64 (i64.mul (call $work (i64.const 9)) (i64.const 0))))

  (func (export "unreachable") (drop (call $work (i64.const 1))) (unreachable))
  (func (export "divide_by_zero") (drop (i32.div_u (i32.const 1) (call $zero))))
  (func (export "divide_overflow")
    (drop (i32.div_s (i32.const 0x80000000) (i32.sub (call $zero) (i32.const 1)))))
  (func (export "conversion") (drop (i32.trunc_f64_s (f64.div (f64.const 1) (f64.convert_i32_u (call $zero))))))
  (func (export "out_of_bounds") (drop (i64.load (i32.sub (call $zero) (i32.const 16)))))
  (func (export "table_out_of_bounds") (call_indirect $table (type $nullary) (i32.add (call $zero) (i32.const 7))))
  (func (export "null_function") (call_indirect $table (type $nullary) (i32.add (call $zero) (i32.const 1))))
  (func (export "wrong_signature") (call_indirect $table (type $nullary) (call $zero)))
  (func (export "null_reference") (drop (call $zero)) (call_ref $nullary (ref.null $nullary)))
  (func $sink (param $x i64) (result i64)
    (i64.add (i64.const 1) (call $sink (i64.add (local.get $x) (i64.const 1)))))
  (func (export "stack_overflow") (drop (call $sink (call $work (i64.const 3)))))
)
