;; Code that is never reached: after branches, returns, traps and throws, with polymorphic stacks, dead loops
;; and dead calls.
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

  (table 1 funcref)

  (func $spin (param $x i64) (param $turns i32) (result i64)
    (loop $again
      (local.set $x (call $mix (local.get $x) (i64.extend_i32_u (local.get $turns))))
      (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (return (local.get $x))
    (call $spin)
    (drop)
    (loop (result i64) (call $spin (i64.const 1) (i32.const 1)) (br 0))
    (drop)
    (i32.add)
    (call_indirect (param i32) (result i64))
    (unreachable))

  (func $exits (param $x i64) (result i64)
    (block $out (result i64)
      (local.set $x (call $spin (local.get $x) (i32.const 3)))
      (br $out (local.get $x))
      (br_table $out $out)
      (if (param i64) (result i64)
        (then (call $exits) (call $spin (i32.const 1)))
        (else (unreachable) (select)))
      (loop $dead (param i64) (result i64)
        (br_if $dead (i32.const 1))
        (call $spin (i32.const 9))
        (br $dead))
      (drop)
      (f64.add)
      (i64.trunc_f64_s))
    (if (param i64) (i32.wrap_i64 (i64.and (local.get $x) (i64.const 1)))
      (then (return (call $spin (i32.const 2))) (unreachable))
      (else (return (call $spin (i32.const 4)))))
    (i64.const 1)
    (i64.const 2)
    (unreachable)
    (call $spin (i32.const 8))
    (return_call $exits))

  ;; A block that is only ever left by branches from inside, with dead code after each.
  (func $nested (param $x i64) (result i64)
    (block $a (result i64)
      (block $b
        (block $c
          (br_if $c (i64.eqz (i64.and (local.get $x) (i64.const 6))))
          (br $b)
          (nop))
        (br $a (call $spin (local.get $x) (i32.const 2)))
        (loop (br 0)))
      (br $a (call $spin (local.get $x) (i32.const 5)))
      (block (loop (drop (call $spin (i64.const 0) (i32.const 1)))))))

  (func (export "_start")
    (local $i i32) (local $hash i64)
    (local.set $i (i32.const 8000))
    (loop $again
      (local.set $hash (call $nested (call $exits (call $mix (local.get $hash) (i64.extend_i32_u (local.get $i))))))
      (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
    (call $print (local.get $hash)))
)
