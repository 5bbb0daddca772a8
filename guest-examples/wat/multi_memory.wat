;; Three memories with copies between them; each grows on its own.
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

  (memory $second 1 20)
  (memory $third (export "third") 2)
  (data (memory $second) (i32.const 8) "second memory")
  (data (memory $third) (i32.const 70000) "third memory")

  (func $round (param $i i32) (param $hash i64) (result i64)
    (local $at i32)
    (local.set $at (i32.add (i32.const 128) (i32.mul (local.get $i) (i32.const 24))))
    (i64.store (local.get $at) (local.get $hash))
    (i64.store $second (local.get $at) (i64.xor (local.get $hash) (i64.const 0xff)))
    (memory.copy $third $second (i32.add (local.get $at) (i32.const 65536)) (i32.const 8) (i32.const 16))
    (memory.copy $second 0 (i32.add (local.get $at) (i32.const 8)) (local.get $at) (i32.const 8))
    (if (i32.eqz (i32.rem_u (local.get $i) (i32.const 100)))
      (then
        (drop (memory.grow $second (i32.const 1)))
        (memory.fill $third (i32.const 1000) (local.get $i) (i32.const 64))))
    (call $mix
      (call $mix (local.get $hash) (i64.load $third (i32.add (local.get $at) (i32.const 65536))))
      (i64.add (i64.load $second (i32.add (local.get $at) (i32.const 8))) (i64.load $third (i32.const 1020)))))

  (func (export "_start")
    (local $i i32) (local $hash i64)
    (loop $again
      (local.set $hash (call $round (local.get $i) (local.get $hash)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 2000))))
    (call $print (local.get $hash))
    (call $print (i64.load $third (i32.const 70000)))
    (call $print (i64.extend_i32_u (memory.size $second))))
)
