;; A memory with 64-bit addresses beside the one that WASI uses, and a table with 64-bit indices.
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

  (memory $wide i64 1 64)
  (table $wide_table i64 4 funcref)
  (type $step (func (param i64) (result i64)))
  (elem (table $wide_table) (i64.const 1) func $spin $other)
  (data (memory $wide) (i64.const 40) "sixty-four")

  (func $spin (param $x i64) (result i64)
    (local $turns i64)
    (local.set $turns (i64.const 4))
    (loop $again
      (local.set $x (call $mix (local.get $x) (local.get $turns)))
      (br_if $again (i64.ne (i64.const 0) (local.tee $turns (i64.sub (local.get $turns) (i64.const 1))))))
    (local.get $x))
  (func $other (param $x i64) (result i64) (i64.xor (local.get $x) (i64.const 0x5555)))

  (func $round (param $i i64) (param $hash i64) (result i64)
    (local $at i64)
    (local.set $at (i64.mul (local.get $i) (i64.const 40)))
    (if (i64.gt_u (i64.add (local.get $at) (i64.const 200)) (i64.mul (memory.size $wide) (i64.const 65536)))
      (then (drop (memory.grow $wide (i64.const 1)))))
    (i64.store $wide offset=128 (local.get $at) (local.get $hash))
    (memory.copy $wide $wide (i64.add (local.get $at) (i64.const 140)) (i64.const 40) (i64.const 10))
    (memory.fill $wide (i64.add (local.get $at) (i64.const 156)) (i32.wrap_i64 (local.get $i)) (i64.const 7))
    (call_indirect $wide_table (type $step)
      (call $mix (local.get $hash) (i64.load $wide offset=136 (local.get $at)))
      (i64.add (i64.const 1) (i64.and (local.get $i) (i64.const 1)))))

  (func (export "_start")
    (local $i i64) (local $hash i64)
    (loop $again
      (local.set $hash (call $round (local.get $i) (local.get $hash)))
      (local.set $i (i64.add (local.get $i) (i64.const 1)))
      (br_if $again (i64.lt_u (local.get $i) (i64.const 8000))))
    (call $print (local.get $hash))
    (call $print (memory.size $wide)))
)
