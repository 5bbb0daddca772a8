;; Exceptions: every kind of catch clause, references to exceptions kept alive over loops and calls,
;; rethrowing, and throws through many frames.
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

  (tag $value (param i64))
  (tag $pair (param i64 f64))
  (tag $empty)

  (func $spin (param $x i64) (param $turns i32) (result i64)
    (loop $again
      (local.set $x (call $mix (local.get $x) (i64.extend_i32_u (local.get $turns))))
      (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (local.get $x))

  (func $throw_some (param $x i64) (result i64)
    (local.set $x (call $spin (local.get $x) (i32.const 3)))
    (block $c
      (block $b
        (block $a
          (br_table $a $b $c (i32.and (i32.wrap_i64 (local.get $x)) (i32.const 3))))
        (throw $value (local.get $x)))
      (throw $pair (local.get $x) (f64.const 1.5)))
    (if (i32.and (i32.wrap_i64 (local.get $x)) (i32.const 4)) (then (throw $empty)))
    (local.get $x))

  ;; The exception passes through all these frames; those that return normally do work after their call.
  (func $through (param $depth i32) (param $x i64) (result i64)
    (if (i32.eqz (local.get $depth)) (then (return (call $throw_some (local.get $x)))))
    (call $mix
      (call $through (i32.sub (local.get $depth) (i32.const 1)) (local.get $x))
      (local.get $x)))

  (func $catch_each (param $x i64) (result i64)
    (local $f f64)
    (block $all
      (block $on_pair (result i64 f64)
        (block $on_value (result i64)
          (try_table (result i64) (catch $value $on_value) (catch $pair $on_pair) (catch_all $all)
            (call $through (i32.const 12) (local.get $x)))
          (return))
        (return (call $spin (i32.const 5))))
      (local.set $f)
      (return (call $mix (i64.reinterpret_f64 (f64.add (local.get $f) (f64.const 0.25))))))
    (call $spin (local.get $x) (i32.const 2)))

  ;; The caught exception stays alive in a local over a loop and calls before it is thrown on.
  (func $hold_and_rethrow (param $x i64) (result i64)
    (local $held exnref)
    (block $caught (result exnref)
      (return
        (try_table (result i64) (catch_all_ref $caught)
          (call $through (i32.const 3) (local.get $x)))))
    (local.set $held)
    (local.set $x (call $spin (local.get $x) (i32.const 8)))
    (throw_ref (local.get $held)))

  ;; A reference that comes with values, and lies on the operand stack beneath a call.
  (func $catch_with_reference (param $x i64) (result i64)
    (local $held exnref) (local $payload i64)
    (block $on_value (result i64 exnref)
      (block $others (result exnref)
        (return
          (try_table (result i64) (catch_ref $value $on_value) (catch_all_ref $others)
            (call $hold_and_rethrow (local.get $x)))))
      (drop (call $spin (i64.const 1) (i32.const 4)))
      (drop)
      (return (call $spin (local.get $x) (i32.const 3))))
    (local.set $held)
    (local.set $payload)
    (call $mix (local.get $payload)
      (block $again (result i64)
        (try_table (catch $value $again)
          (local.get $held)
          (drop (call $spin (local.get $x) (i32.const 2)))
          (throw_ref))
        (unreachable))))

  ;; catch_all around a loop that calls: a stop inside must not look like an exception to the guest.
  (func $guarded (param $x i64) (result i64)
    (local $turns i32)
    (local.set $turns (i32.const 10))
    (block $never
      (try_table (catch_all $never)
        (loop $again
          (local.set $x (call $spin (local.get $x) (i32.const 4)))
          (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
        (return (local.get $x))))
    (i64.const 0xbad))

  (func (export "_start")
    (local $i i32) (local $hash i64)
    (local.set $i (i32.const 2000))
    (loop $again
      (local.set $hash (call $mix (local.get $hash) (i64.extend_i32_u (local.get $i))))
      (local.set $hash (call $catch_each (local.get $hash)))
      (local.set $hash (call $catch_with_reference (local.get $hash)))
      (local.set $hash (call $guarded (local.get $hash)))
      (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
    (call $print (local.get $hash)))
)
