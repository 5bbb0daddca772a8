;; Calls through tables: several signatures, two tables, an imported function as table entry, tables chosen 
;; by data.
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

  (type $unary (func (param i64) (result i64)))
  (type $binary (func (param i64 i64) (result i64)))
  (type $write (func (param i32 i32 i32 i32) (result i32)))
  (table $unaries 4 4 funcref)
  (table $mixed 8 funcref)
  (elem (table $unaries) (i32.const 0) func $shuffle $count_down $twice $shuffle)
  (elem (table $mixed) (i32.const 1) func $mix $walk $fd_write)

  (func $shuffle (param $x i64) (result i64)
    (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 7))))
  (func $count_down (param $x i64) (result i64)
    (local $turns i32)
    (local.set $turns (i32.const 9))
    (loop $again
      (local.set $x (call $mix (local.get $x) (i64.const 3)))
      (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (local.get $x))
  (func $twice (param $x i64) (result i64)
    (call_indirect $unaries (type $unary)
      (call_indirect $unaries (type $unary) (local.get $x) (i32.const 1))
      (i32.const 0)))
  (func $walk (param $x i64) (param $y i64) (result i64)
    (local.get $x)
    (local.get $y)
    (call_indirect $unaries (type $unary)
      (i32.and (i32.wrap_i64 (local.get $x)) (i32.const 3)))
    (i32.const 1)
    (call_indirect $mixed (type $binary)))

  (func (export "_start")
    (local $i i32) (local $hash i64)
    (local.set $i (i32.const 20000))
    (loop $again
      (local.set $hash
        (call_indirect $mixed (type $binary)
          (call $mix (local.get $hash) (i64.extend_i32_u (local.get $i)))
          (local.get $hash)
          (i32.add (i32.const 1) (i32.and (local.get $i) (i32.const 1)))))
      (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
    (call $print (local.get $hash))
    ;; The digits of the last line are still in memory: write them once more, through the table.
    (drop (call_indirect $mixed (type $write)
      (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 3))))
)
