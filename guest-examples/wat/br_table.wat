;; A small bytecode interpreter driven by br_table, with branches that leave several blocks and carry values.
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

  ;; The program: 0 add the counter, 1 mix, 2 jump back while the counter is not zero, 3 call, 4 double, other halt.
  (data (i32.const 64) "\00\01\03\04\01\03\00\01\02\05")

  (func $helper (param $x i64) (result i64)
    (local $turns i32)
    (local.set $turns (i32.const 3))
    (loop $again
      (local.set $x (call $mix (local.get $x) (i64.const 17)))
      (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (local.get $x))

  (func $interpret (param $hash i64) (param $counter i32) (result i64)
    (local $pc i32)
    (local.set $pc (i32.const 64))
    (block $halt
      (loop $next
        (block $double
          (block $call
            (block $jump
              (block $mix_it
                (block $add
                  (i32.load8_u (local.get $pc))
                  (local.set $pc (i32.add (local.get $pc) (i32.const 1)))
                  (br_table $add $mix_it $jump $call $double $halt))
                (local.set $hash (i64.add (local.get $hash) (i64.extend_i32_u (local.get $counter))))
                (br $next))
              (local.set $hash (call $mix (local.get $hash) (i64.const 5)))
              (br $next))
            (if (i32.eqz (local.tee $counter (i32.sub (local.get $counter) (i32.const 1))))
              (then (br $next)))
            (local.set $pc (i32.const 64))
            (br $next))
          (local.set $hash (call $helper (local.get $hash)))
          (br $next))
        (local.set $hash (i64.shl (local.get $hash) (i64.const 1)))
        (br $next)))
    (local.get $hash))

  ;; Every target of this br_table takes a value with it, from beneath which another is dropped.
  (func $values (param $x i64) (result i64)
    (block $a (result i64)
      (block $b (result i64)
        (block $c (result i64)
          (i64.const 1000)
          (call $helper (local.get $x))
          (br_table $a $b $c (i32.and (i32.wrap_i64 (local.get $x)) (i32.const 3))))
        (call $mix (i64.const 3)))
      (call $mix (i64.const 4))))

  (func (export "_start")
    (local $i i32) (local $hash i64)
    (local.set $hash (call $interpret (i64.const 1) (i32.const 30000)))
    (local.set $i (i32.const 10000))
    (loop $again
      (local.set $hash (call $values (local.get $hash)))
      (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
    (call $print (local.get $hash)))
)
