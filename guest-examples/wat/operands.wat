;; Nested loops above a deep operand stack: values of every number type wait beneath calls, blocks and loops, 
;; and copies of locals wait on the stack while the locals change.
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

  ;; Takes a while, so that everything beneath its arguments has to survive.
  (func $work (param $seed i64) (param $turns i32) (result i64)
    (loop $again
      (local.set $seed (call $mix (local.get $seed) (i64.extend_i32_u (local.get $turns))))
      (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (local.get $seed))

  ;; Twelve operands are under way when the innermost call is made.
  (func $deep (param $x i64) (result i64)
    (local $i i32) (local $hash i64)
    (i64.const 1)
    (i64.add (local.get $x) (i64.const 2))
    (f64.convert_i64_u (i64.and (local.get $x) (i64.const 0xfffff)))
    (i32.wrap_i64 (local.get $x))
    (f32.convert_i32_u (i32.and (i32.wrap_i64 (local.get $x)) (i32.const 0xffff)))
    (block $outer (result i64)
      (local.get $x)
      (local.set $i (i32.const 3))
      (loop $loop (result i64)
        (i64.const 7)
        (call $work (local.get $x) (i32.const 5))
        (call $work (i64.const 99) (i32.const 3))
        (i64.extend_i32_u (local.get $i))
        (local.set $x (call $mix (local.get $x) (local.get $hash)))
        (call $mix)
        (call $mix)
        (call $mix)
        (local.set $hash (call $mix (local.get $hash)))
        (local.set $i (i32.sub (local.get $i) (i32.const 1)))
        (br_if $loop (local.get $i))
        (call $work (local.get $hash) (i32.const 4)))
      (call $mix)
      (if (result i64) (i32.and (i32.wrap_i64 (local.get $x)) (i32.const 1))
        (then (br $outer (call $work (local.get $x) (i32.const 2))))
        (else (i64.const 11)))
      (local.set $hash)
      (drop)
      (call $work (local.get $hash) (i32.const 3))
      (call $mix (local.get $x)))
    (local.set $x)
    (i64.extend_i32_u (i32.reinterpret_f32))
    (local.set $hash (call $mix (local.get $x)))
    (i64.extend_i32_u)
    (local.set $hash (call $mix (local.get $hash)))
    (i64.reinterpret_f64)
    (local.set $hash (call $mix (local.get $hash)))
    (call $mix (local.get $hash))
    (call $mix))

  ;; The operand is a copy: setting the local afterwards must not change it, stop or no stop.
  (func $old_values (param $x i64) (result i64)
    (local.get $x)
    (local.set $x (call $work (local.get $x) (i32.const 2)))
    (local.get $x)
    (local.set $x (call $work (local.get $x) (i32.const 3)))
    (local.get $x)
    (local.set $x (i64.const 0))
    (call $work (i64.const 5) (i32.const 4))
    (call $mix)
    (call $mix)
    (call $mix))

  (func (export "_start")
    (local $i i32) (local $j i32) (local $hash i64)
    (local.set $i (i32.const 40))
    (loop $rows
      (local.set $j (i32.const 40))
      (loop $columns
        (local.set $hash (call $deep (call $mix (local.get $hash) (i64.extend_i32_u (local.get $j)))))
        (local.set $hash (call $old_values (local.get $hash)))
        (br_if $columns (local.tee $j (i32.sub (local.get $j) (i32.const 1)))))
      (br_if $rows (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
    (call $print (local.get $hash)))
)
