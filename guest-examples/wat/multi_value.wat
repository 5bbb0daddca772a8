;; Blocks, loops and ifs with parameters and several results; functions with several results; branches that 
;; carry several values.
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

  (func $divide (param $a i64) (param $b i64) (result i64 i64)
    (i64.div_u (local.get $a) (local.get $b))
    (i64.rem_u (local.get $a) (local.get $b)))

  ;; The greatest common divisor with a loop that hands its state over as block parameters only.
  (func $gcd (param $a i64) (param $b i64) (result i64)
    (local $t i64)
    (local.get $a)
    (local.get $b)
    (loop $again (param i64 i64) (result i64)
      (local.set $t)
      (if (param i64) (result i64 i64 i32) (i64.eqz (local.get $t))
        (then (i64.const 0) (i32.const 0))
        (else
          (local.set $a)
          (local.get $t)
          (call $divide (local.get $a) (local.get $t))
          (local.set $b)
          (drop)
          (local.get $b)
          (i32.const 1)))
      (br_if $again)
      (drop)))

  (func $three (param $x i64) (result i64 f64 i32)
    (call $gcd (local.get $x) (i64.const 360360))
    (f64.convert_i64_u (i64.and (local.get $x) (i64.const 0xffff)))
    (i32.wrap_i64 (local.get $x)))

  (func $juggle (param $x i64) (result i64)
    (local $turns i32)
    (local.set $turns (i32.const 4))
    (call $three (local.get $x))
    (loop $again (param i64 f64 i32) (result i64 f64 i32)
      (block $carry (param i64 f64 i32) (result i64 f64 i32)
        (drop)
        (f64.add (f64.const 0.5))
        (call $three (local.get $x))
        (local.set $x (i64.add (local.get $x) (i64.const 1)))
        (br_if $carry (i32.and (local.get $turns) (i32.const 1)))
        (drop)
        (drop)
        (drop)
        (i32.trunc_sat_f64_u)
        (i64.extend_i32_u)
        (i64.add)
        (f64.const 2.25)
        (i32.const 6))
      (local.set $turns (i32.sub (local.get $turns) (i32.const 1)))
      (br_if $again (local.get $turns)))
    (i64.extend_i32_u)
    (local.set $x (call $mix (local.get $x)))
    (i64.reinterpret_f64)
    (local.set $x (call $mix (local.get $x)))
    (call $mix (local.get $x)))

  (func (export "_start")
    (local $i i32) (local $hash i64)
    (local.set $i (i32.const 4000))
    (loop $again
      (local.set $hash (call $juggle (call $mix (local.get $hash) (i64.extend_i32_u (local.get $i)))))
      (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
    (call $print (local.get $hash)))
)
