;; Recursion: Fibonacci numbers, the Ackermann function, mutual recursion, and recursion that does work on 
;; the way up.
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

  (func $fib (param $n i32) (result i64)
    (if (result i64) (i32.lt_u (local.get $n) (i32.const 2))
      (then (i64.extend_i32_u (local.get $n)))
      (else
        (i64.add
          (call $fib (i32.sub (local.get $n) (i32.const 1)))
          (call $fib (i32.sub (local.get $n) (i32.const 2)))))))

  (func $ackermann (param $m i32) (param $n i32) (result i32)
    (if (i32.eqz (local.get $m)) (then (return (i32.add (local.get $n) (i32.const 1)))))
    (if (i32.eqz (local.get $n))
      (then (return (call $ackermann (i32.sub (local.get $m) (i32.const 1)) (i32.const 1)))))
    (call $ackermann
      (i32.sub (local.get $m) (i32.const 1))
      (call $ackermann (local.get $m) (i32.sub (local.get $n) (i32.const 1)))))

  (func $is_even (param $n i32) (result i32)
    (if (result i32) (local.get $n)
      (then (call $is_odd (i32.sub (local.get $n) (i32.const 1))))
      (else (i32.const 1))))
  (func $is_odd (param $n i32) (result i32)
    (if (result i32) (local.get $n)
      (then (call $is_even (i32.sub (local.get $n) (i32.const 1))))
      (else (i32.const 0))))

  ;; Every frame keeps two numbers for the way up.
  (func $fold (param $depth i32) (param $hash i64) (result i64)
    (local $kept i64)
    (local.set $kept (call $mix (local.get $hash) (i64.extend_i32_u (local.get $depth))))
    (if (i32.eqz (local.get $depth)) (then (return (local.get $kept))))
    (call $mix
      (local.get $hash)
      (call $mix
        (call $fold (i32.sub (local.get $depth) (i32.const 1)) (local.get $kept))
        (local.get $kept))))

  (func (export "_start")
    (local $i i32) (local $hash i64)
    (call $print (call $fib (i32.const 24)))
    (call $print (i64.extend_i32_u (call $ackermann (i32.const 2) (i32.const 120))))
    (call $print (i64.extend_i32_u (call $is_even (i32.const 1001))))
    (local.set $i (i32.const 60))
    (loop $again
      (local.set $hash (call $fold (i32.const 1000) (local.get $hash)))
      (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
    (call $print (local.get $hash)))
)
