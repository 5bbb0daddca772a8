;; Loops made of tail calls, direct, through a table and through references, beneath frames that wait for the 
;; result.
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

  (type $step (func (param i32 i64) (result i64)))
  (table $steps funcref (elem $odd $even $mixed))
  (elem declare func $by_reference)

  (func $count (param $n i32) (param $hash i64) (result i64)
    (if (i32.eqz (local.get $n)) (then (return (local.get $hash))))
    (return_call $count
      (i32.sub (local.get $n) (i32.const 1))
      (call $mix (local.get $hash) (i64.extend_i32_u (local.get $n)))))

  (func $odd (type $step) (param $n i32) (param $hash i64) (result i64)
    (if (i32.eqz (local.get $n)) (then (return (local.get $hash))))
    (return_call_indirect $steps (type $step)
      (i32.sub (local.get $n) (i32.const 1))
      (call $mix (local.get $hash) (i64.const 1))
      (i32.and (local.get $n) (i32.const 1))))
  (func $even (type $step) (param $n i32) (param $hash i64) (result i64)
    (if (i32.eqz (local.get $n)) (then (return (local.get $hash))))
    (return_call_indirect $steps (type $step)
      (i32.sub (local.get $n) (i32.const 1))
      (call $mix (local.get $hash) (i64.const 2))
      (i32.const 2)))
  ;; More parameters and locals than the callee has: the frame changes its size at the tail call.
  (func $mixed (type $step) (param $n i32) (param $hash i64) (result i64)
    (local $a i64) (local $b i64)
    (local.set $a (call $count (i32.const 3) (local.get $hash)))
    (local.set $b (call $count (i32.const 2) (local.get $a)))
    (if (i32.lt_u (local.get $n) (i32.const 2))
      (then (return_call $mix (local.get $a) (local.get $b))))
    (return_call_ref $step
      (i32.sub (local.get $n) (i32.const 2))
      (call $mix (local.get $a) (local.get $b))
      (ref.func $by_reference)))
  (func $by_reference (type $step) (param $n i32) (param $hash i64) (result i64)
    (return_call_indirect $steps (type $step)
      (local.get $n) (local.get $hash) (i32.and (local.get $n) (i32.const 1))))

  (func $waiting (param $depth i32) (param $hash i64) (result i64)
    (if (result i64) (local.get $depth)
      (then
        (call $mix (local.get $hash)
          (call $waiting (i32.sub (local.get $depth) (i32.const 1))
            (call $odd (i32.const 60) (local.get $hash)))))
      (else (return_call $count (i32.const 2000) (local.get $hash)))))

  (func (export "_start")
    (call $print (call $count (i32.const 200000) (i64.const 0)))
    (call $print (call $odd (i32.const 100000) (i64.const 0)))
    (call $print (call $waiting (i32.const 200) (i64.const 4))))
)
