;; Leaves with exit code 42 from the depth of a recursion.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
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

  (func $down (param $depth i32) (param $hash i64)
    (if (i32.eqz (local.get $depth))
      (then
        (call $print (local.get $hash))
        (call $proc_exit (i32.const 42))
        (unreachable)))
    (call $down
      (i32.sub (local.get $depth) (i32.const 1))
      (call $mix (local.get $hash) (i64.extend_i32_u (local.get $depth))))
    (call $print (i64.const 0xbad)))
  (func (export "_start")
    (local $i i32) (local $hash i64)
    (local.set $i (i32.const 10000))
    (loop $again
      (local.set $hash (call $mix (local.get $hash) (i64.extend_i32_u (local.get $i))))
      (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
    (call $down (i32.const 2000) (local.get $hash)))
)
