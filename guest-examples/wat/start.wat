;; A start function that works for a while and calls the host, before the entry point is called.
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

  (global $prepared (mut i64) (i64.const 1))
  (func $prepare
    (local $turns i32)
    (local.set $turns (i32.const 40000))
    (loop $again
      (global.set $prepared (call $mix (global.get $prepared) (i64.extend_i32_u (local.get $turns))))
      (i64.store offset=1000 (i32.and (local.get $turns) (i32.const 0xff8)) (global.get $prepared))
      (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (call $print (global.get $prepared)))
  (start $prepare)

  (func (export "_start")
    (local $turns i32)
    (local.set $turns (i32.const 40000))
    (loop $again
      (global.set $prepared (call $mix (global.get $prepared)
        (i64.load offset=1000 (i32.and (local.get $turns) (i32.const 0xff8)))))
      (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (call $print (global.get $prepared)))
)
