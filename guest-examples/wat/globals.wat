;; Several globals of every type, mutable and not, initialised with extended constant expressions, and
;; changed all the time.
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

  (type $step (func (param i64) (result i64)))
  (global $base i32 (i32.const 40))
  (global $scaled (mut i32) (i32.add (i32.mul (global.get $base) (i32.const 3)) (i32.const 7)))
  (global $wide i64 (i64.sub (i64.const 5) (i64.const 0x100000000)))
  (global $hash (export "hash") (mut i64) (i64.mul (i64.const 3) (global.get $wide)))
  (global $second (mut i64) (global.get $wide))
  (global $single (mut f32) (f32.const 0.1))
  (global $single_two (mut f32) (f32.const nan:0x312345))
  (global $double (mut f64) (f64.const 1e300))
  (global $double_two (mut f64) (f64.const -nan:0x4deadbeef1234))
  (global $vector (mut v128) (v128.const i32x4 1 2 3 4))
  (global $vector_two (mut v128) (v128.const i64x2 5 6))
  (global $function (mut funcref) (ref.null func))
  (global $typed (mut (ref $step)) (ref.func $spin))
  (global $outside (mut externref) (ref.null extern))
  (data (offset (i32.add (global.get $base) (i32.const 60))) "placed by an extended constant")
  (elem declare func $round $flip)

  (func $spin (param $x i64) (result i64)
    (local $turns i32)
    (local.set $turns (i32.const 4))
    (loop $again
      (local.set $x (call $mix (local.get $x) (i64.extend_i32_u (local.get $turns))))
      (global.set $scaled (i32.add (global.get $scaled) (local.get $turns)))
      (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (local.get $x))
  (func $flip (param $x i64) (result i64)
    (i64.xor (local.get $x) (i64.extend_i32_u (global.get $scaled))))

  (func $round (param $i i32)
    (global.set $hash (call_ref $step (global.get $hash) (global.get $typed)))
    (if (i32.and (local.get $i) (i32.const 1))
      (then (global.set $typed (ref.func $flip)) (global.set $function (ref.func $round)))
      (else (global.set $typed (ref.func $spin)) (global.set $function (ref.null func))))
    (global.set $second (i64.rotr (i64.add (global.get $second) (global.get $hash)) (i64.const 3)))
    (global.set $single (f32.add (f32.mul (global.get $single) (f32.const 0.5)) (f32.convert_i32_u (local.get $i))))
    (global.set $double (f64.div (global.get $double) (f64.const 1.0625)))
    (global.set $vector (i32x4.add (global.get $vector) (global.get $vector_two)))
    (global.set $vector_two (i64x2.add (global.get $vector_two) (i64x2.splat (global.get $hash)))))

  (func (export "_start")
    (local $i i32)
    (loop $again
      (call $round (local.get $i))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 10000))))
    (call $print (global.get $hash))
    (call $print (global.get $second))
    (call $print (i64.extend_i32_u (global.get $scaled)))
    (call $print (i64.reinterpret_f64 (global.get $double)))
    (call $print (i64.reinterpret_f64 (global.get $double_two)))
    (call $print (i64.extend_i32_u (i32.reinterpret_f32 (global.get $single))))
    (call $print (i64.extend_i32_u (i32.reinterpret_f32 (global.get $single_two))))
    (call $print (i64x2.extract_lane 0 (global.get $vector)))
    (call $print (i64x2.extract_lane 1 (global.get $vector_two)))
    (call $print (i64.load (i32.const 100)))
    (call $print (i64.extend_i32_u
      (i32.add (ref.is_null (global.get $function)) (ref.is_null (global.get $outside))))))
)
