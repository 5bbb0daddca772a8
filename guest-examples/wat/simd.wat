;; Vectors in locals, parameters and results, alive across calls and loops; relaxed operations where all
;; permitted results agree.
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

  (func $scramble (param $v v128) (param $x i64) (result v128)
    (local $w v128) (local $turns i32)
    (local.set $w (i8x16.shuffle 15 0 14 1 13 2 12 3 11 4 10 5 9 6 8 7 (local.get $v) (local.get $v)))
    (local.set $turns (i32.const 4))
    (loop $again
      (local.set $w (i32x4.add (local.get $w) (v128.xor (local.get $v) (i64x2.splat (local.get $x)))))
      (local.set $x (call $spin (local.get $x) (i32.const 2)))
      (local.set $v (i16x8.mul (local.get $v) (i16x8.add_sat_s (local.get $w) (i16x8.splat (i32.const 3)))))
      (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (v128.bitselect (local.get $v) (local.get $w) (v128.const i32x4 0x0f0f0f0f 0xffffffff 0 0x12345678)))

  ;; Vectors wait on the operand stack, too.
  (func $stacked (param $x i64) (result v128 v128)
    (i64x2.splat (local.get $x))
    (call $scramble (v128.const i8x16 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15) (local.get $x))
    (call $scramble (f32x4.splat (f32.const 1.25)) (call $spin (local.get $x) (i32.const 3)))
    (v128.xor)
    (i8x16.avgr_u (v128.const i64x2 0x0102030405060708 0x1112131415161718)))

  (func $relaxed (param $v v128) (result v128)
    (local $floats v128)
    (local.set $floats (f32x4.convert_i32x4_u (v128.and (local.get $v) (i32x4.splat (i32.const 255)))))
    (local.set $floats
      (f32x4.relaxed_madd (local.get $floats) (f32x4.splat (f32.const 2)) (f32x4.splat (f32.const 1))))
    (v128.xor
      (i32x4.relaxed_trunc_f32x4_u (local.get $floats))
      (i8x16.relaxed_swizzle (local.get $v) (v128.const i8x16 3 2 1 0 7 6 5 4 11 10 9 8 15 14 13 12))))

  (func (export "_start")
    (local $i i32) (local $hash i64) (local $v v128) (local $kept v128)
    (local.set $kept (v128.const i64x2 0x0123456789abcdef 0xfedcba9876543210))
    (local.set $i (i32.const 3000))
    (loop $again
      (call $stacked (call $mix (local.get $hash) (i64.extend_i32_u (local.get $i))))
      (local.set $v (i64x2.add))
      (local.set $kept (i64x2.sub (v128.xor (local.get $kept) (local.get $v)) (call $relaxed (local.get $v))))
      (local.set $hash (call $mix (i64x2.extract_lane 0 (local.get $v)) (i64x2.extract_lane 1 (local.get $kept))))
      (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
    (call $print (local.get $hash))
    (call $print (i64x2.extract_lane 0 (local.get $kept)))
    (call $print (i64x2.extract_lane 1 (local.get $kept))))
)
