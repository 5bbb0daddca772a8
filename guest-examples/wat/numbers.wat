;; All number types alive at once; NaNs with payloads, signalling ones included, keep their bits while they
;; only lie in locals.
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

  (func $spin (param $x i64) (param $turns i32) (result i64)
    (loop $again
      (local.set $x (call $mix (local.get $x) (i64.extend_i32_u (local.get $turns))))
      (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (local.get $x))

  (func $all_types (param $a i32) (param $b i64) (param $c f32) (param $d f64) (param $e v128) (result i64)
    (local $nan32 f32) (local $nan64 f64) (local $zero64 f64) (local $hash i64)
    (local.set $nan32 (f32.reinterpret_i32 (i32.const 0x7fa12345)))
    (local.set $nan64 (f64.reinterpret_i64 (i64.const 0xfff4deadbeef1234)))
    (local.set $zero64 (f64.const -0))
    (local.get $c)
    (f64.sqrt (f64.abs (local.get $d)))
    (i64.clz (local.get $b))
    (local.set $hash (call $spin (local.get $b) (i32.const 10)))
    (call $mix (local.get $hash))
    (local.set $hash)
    (i64.reinterpret_f64)
    (local.set $hash (call $mix (local.get $hash)))
    (i64.extend_i32_u (i32.reinterpret_f32))
    (local.set $hash (call $mix (local.get $hash)))
    (local.set $hash (call $mix (local.get $hash) (i64.extend_i32_s (local.get $a))))
    (local.set $hash (call $mix (local.get $hash) (i64.reinterpret_f64 (local.get $zero64))))
    (local.set $hash (call $mix (local.get $hash) (i64.reinterpret_f64 (local.get $nan64))))
    (local.set $hash (call $mix (local.get $hash) (i64.extend_i32_u (i32.reinterpret_f32 (local.get $nan32)))))
    (call $mix (local.get $hash) (i64x2.extract_lane 1 (local.get $e))))

  ;; Newton's iteration for a square root: each turn depends on every bit of the one before.
  (func $root (param $x f64) (result f64)
    (local $guess f64) (local $turns i32)
    (local.set $guess (local.get $x))
    (local.set $turns (i32.const 12))
    (loop $again
      (local.set $guess
        (f64.mul (f64.const 0.5) (f64.add (local.get $guess) (f64.div (local.get $x) (local.get $guess)))))
      (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (local.get $guess))

  (func (export "_start")
    (local $i i32) (local $hash i64) (local $sum f64) (local $small f32)
    (local.set $i (i32.const 5000))
    (loop $again
      (local.set $sum (f64.add (local.get $sum) (call $root (f64.convert_i32_u (local.get $i)))))
      (local.set $small (f32.add (f32.mul (local.get $small) (f32.const 0.75)) (f32.demote_f64 (local.get $sum))))
      (local.set $hash
        (call $all_types (local.get $i) (local.get $hash) (local.get $small) (local.get $sum)
          (f32x4.splat (local.get $small))))
      (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
    (call $print (local.get $hash))
    (call $print (i64.reinterpret_f64 (local.get $sum))))
)
