;; Tables that change while the program runs: set, grow, fill, copy, init and elem.drop; function references
;; in locals, globals and on the operand stack.
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
  (table $main 6 64 funcref)
  (table $spare 3 funcref)
  (table $outside 2 8 externref)
  (elem $passive func $add $multiply $spin)
  (elem $dropped func $spin $spin)
  (elem (table $spare) (i32.const 0) func $spin $add $multiply)
  (global $current (mut funcref) (ref.func $add))
  (global $typed (mut (ref null $step)) (ref.null $step))

  (func $add (type $step) (i64.add (local.get 0) (i64.const 0x51ed)))
  (func $multiply (type $step) (i64.mul (local.get 0) (i64.const 0x10001)))
  (func $spin (type $step) (param $x i64) (result i64)
    (local $turns i32)
    (local.set $turns (i32.const 5))
    (loop $again
      (local.set $x (call $mix (local.get $x) (i64.extend_i32_u (local.get $turns))))
      (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (local.get $x))

  (func $call_all (param $x i64) (result i64)
    (local $slot i32) (local $entry funcref) (local $nothing externref)
    (loop $next
      (local.set $entry (table.get $main (local.get $slot)))
      (local.set $nothing (table.get $outside (i32.const 1)))
      (if (ref.is_null (local.get $entry))
        (then (local.set $x (call $mix (local.get $x) (i64.extend_i32_u (local.get $slot)))))
        (else (local.set $x (call_indirect $main (type $step) (local.get $x) (local.get $slot)))))
      (global.set $current (local.get $entry))
      (local.set $x (i64.add (local.get $x) (i64.extend_i32_u (ref.is_null (local.get $nothing)))))
      (local.set $slot (i32.add (local.get $slot) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $slot) (table.size $main))))
    (local.get $x))

  ;; Swaps two entries; one of them waits on the operand stack beneath a call.
  (func $swap (param $a i32) (param $b i32) (param $x i64) (result i64)
    (local.get $a)
    (table.get $main (local.get $b))
    (local.set $x (call $spin (local.get $x)))
    (table.set $main (local.get $b) (table.get $main (local.get $a)))
    (table.set $main)
    (local.get $x))

  (func $round (param $i i32) (param $x i64) (result i64)
    (local $size i32)
    (local.set $size (table.size $main))
    (local.set $x (call $call_all (local.get $x)))
    (local.set $x
      (call $swap
        (i32.rem_u (local.get $i) (local.get $size))
        (i32.rem_u (i32.add (local.get $i) (i32.const 5)) (local.get $size))
        (local.get $x)))
    (table.set $main (i32.rem_u (local.get $i) (local.get $size)) (global.get $current))
    (if (i32.eqz (i32.rem_u (local.get $i) (i32.const 16)))
      (then
        (drop (table.grow $main (table.get $spare (i32.rem_u (local.get $i) (i32.const 3))) (i32.const 1)))
        (drop (table.grow $outside (ref.null extern) (i32.const 1)))
        (global.set $typed (ref.func $spin))))
    (if (i32.eq (i32.rem_u (local.get $i) (i32.const 16)) (i32.const 5))
      (then (table.fill $main (i32.const 1) (ref.null func) (i32.const 2))))
    (if (i32.eq (i32.rem_u (local.get $i) (i32.const 16)) (i32.const 9))
      (then (table.copy $main $spare (i32.const 0) (i32.const 1) (i32.const 2))))
    (if (i32.eq (i32.rem_u (local.get $i) (i32.const 64)) (i32.const 11))
      (then (table.init $main $passive (i32.const 3) (i32.const 0) (i32.const 3))))
    (if (result i64) (ref.is_null (global.get $typed))
      (then (local.get $x))
      (else (call_ref $step (local.get $x) (global.get $typed)))))

  (func (export "_start")
    (local $i i32) (local $hash i64)
    (elem.drop $dropped)
    (table.init $main $passive (i32.const 2) (i32.const 0) (i32.const 3))
    (loop $again
      (local.set $hash (call $round (local.get $i) (local.get $hash)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 1000))))
    (call $print (local.get $hash))
    (call $print (i64.extend_i32_u (table.size $main)))
    ;; Of a dropped segment only the empty range is left: this traps, also when the drop happened before a stop.
    (table.init $main $dropped (i32.const 0) (i32.const 0) (i32.const 1)))
)
