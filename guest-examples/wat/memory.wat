;; Linear memory: grow, fill, copy, init and data.drop between loops; the checksum reads every byte.
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

  (data $passive "the quick brown fox jumps over the lazy dog")
  (data $dropped "gone")
  (data (i32.const 1024) "active segments run once, before the program starts")

  (func $checksum (param $from i32) (param $to i32) (param $hash i64) (result i64)
    (loop $next
      (local.set $hash (call $mix (local.get $hash) (i64.load (local.get $from))))
      (local.set $from (i32.add (local.get $from) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $from) (local.get $to))))
    (local.get $hash))

  (func $round (param $i i32) (param $hash i64) (result i64)
    (local $end i32)
    (local.set $end (i32.mul (memory.size) (i32.const 65536)))
    (memory.init $passive (i32.add (i32.const 4096) (i32.mul (local.get $i) (i32.const 97))) (i32.const 4) (i32.const 30))
    (memory.copy
      (i32.add (i32.const 5000) (i32.mul (local.get $i) (i32.const 131))) (i32.const 1024) (i32.const 51))
    (if (i32.eqz (i32.rem_u (local.get $i) (i32.const 7)))
      (then
        (drop (memory.grow (i32.const 1)))
        (memory.fill (i32.sub (local.get $end) (i32.const 100)) (local.get $i) (i32.const 200))))
    (i64.store (i32.sub (local.get $end) (i32.const 4096)) (local.get $hash))
    (call $checksum (i32.const 1024) (i32.const 20000)
      (call $checksum (i32.sub (local.get $end) (i32.const 8192)) (local.get $end) (local.get $hash))))

  (func (export "_start")
    (local $i i32) (local $hash i64)
    (data.drop $dropped)
    (loop $again
      (local.set $hash (call $round (local.get $i) (local.get $hash)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 100))))
    (local.set $hash
      (call $checksum (i32.const 64) (i32.mul (memory.size) (i32.const 65536)) (local.get $hash)))
    (call $print (local.get $hash))
    (call $print (i64.extend_i32_u (memory.size)))
    ;; A dropped segment is empty: this traps, also when the drop happened before a stop.
    (memory.init $dropped (i32.const 64) (i32.const 0) (i32.const 1)))
)
