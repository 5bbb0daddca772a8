;; Every way to call an imported function, tail calls included, with frames beneath and loops between; and
;; references to it in a global, a table and locals.
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

  (type $write (func (param i32 i32 i32 i32) (result i32)))
  (export "write" (func $fd_write))
  (global $kept (mut funcref) (ref.func $fd_write))
  (global $typed (ref $write) (ref.func $fd_write))
  (table $writers 3 funcref)
  (elem (table $writers) (i32.const 1) func $fd_write)

  (func $spin (param $x i64) (param $turns i32) (result i64)
    (loop $again
      (local.set $x (call $mix (local.get $x) (i64.extend_i32_u (local.get $turns))))
      (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (local.get $x))

  ;; The line that $print left in memory is written once more in each of these ways.
  (func $tail (result i32)
    (return_call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
  (func $tail_by_table (result i32)
    (return_call_indirect $writers (type $write)
      (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 1)))
  (func $tail_by_reference (result i32)
    (return_call_ref $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8) (global.get $typed)))
  (func $by_local (result i32)
    (local $writer (ref $write))
    (local.set $writer (ref.func $fd_write))
    (drop (call $spin (i64.const 1) (i32.const 20)))
    (call_ref $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8) (local.get $writer)))
  (func $by_global (result i32)
    (table.set $writers (i32.const 2) (global.get $kept))
    (global.set $kept (ref.null func))
    (drop (call $spin (i64.const 2) (i32.const 20)))
    (global.set $kept (table.get $writers (i32.const 2)))
    (table.set $writers (i32.const 2) (ref.null func))
    (table.set $writers (i32.const 0) (global.get $kept))
    (call_indirect $writers (type $write)
      (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 0)))

  (func (export "_start")
    (local $i i32) (local $hash i64)
    (local.set $i (i32.const 12))
    (loop $again
      (local.set $hash (call $spin (call $mix (local.get $hash) (i64.extend_i32_u (local.get $i))) (i32.const 500)))
      (call $print (local.get $hash))
      (local.get $hash)
      (call $tail)
      (call $tail_by_table)
      (call $tail_by_reference)
      (call $by_local)
      (call $by_global)
      (i32.or)
      (i32.or)
      (i32.or)
      (i32.or)
      (i64.extend_i32_u)
      (local.set $hash (i64.add))
      (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1))))))
)
