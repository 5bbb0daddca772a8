;; An exception that nobody catches ends the program.
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

  (tag $value (param i64))
  (func $spin_and_throw (param $turns i32) (param $x i64)
    (loop $again
      (local.set $x (call $mix (local.get $x) (i64.const 1)))
      (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (call $print (local.get $x))
    (throw $value (local.get $x)))
  (func (export "_start")
    (call $spin_and_throw (i32.const 20000) (i64.const 1)))
)
