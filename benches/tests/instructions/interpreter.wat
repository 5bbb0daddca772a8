;; An interpreter of a small stack machine: a loop around a table of labels, with many locals and some calls.
(module
  (memory 1)
  ;; For n turns: sum += n * n; n -= 1.  Instructions: 0 end, 1 push sum, 2 push n, 3 multiply, 4 add, 5 pop sum, 6 count
  ;; down and jump to the start unless zero, 7 mix by a call.
  (data (i32.const 0) "\01\02\02\03\04\07\05\06\00")
  (func $mix (param $value i64) (result i64) (local $turn i32)
    (local.set $turn (i32.const 3))
    (loop $again
      (local.set $value (i64.xor (local.get $value) (i64.shr_u (local.get $value) (i64.const 7))))
      (local.set $value (i64.mul (local.get $value) (i64.const 0x9E3779B97F4A7C15)))
      (br_if $again (local.tee $turn (i32.sub (local.get $turn) (i32.const 1)))))
    (local.get $value))
  (func (export "run") (param $turns i32) (result i64)
    (local $at i32) (local $top i32) (local $sum i64) (local $n i64)
    (local.set $n (i64.extend_i32_u (local.get $turns)))
    (local.set $top (i32.const 1024))
    (block $end
      (loop $fetch
        (block $mix (block $count (block $pop (block $add (block $multiply (block $push_n (block $push_sum
          (br_table $end $push_sum $push_n $multiply $add $pop $count $mix (i32.load8_u (local.get $at))))
              ;; push sum
              (i64.store (local.get $top) (local.get $sum))
              (local.set $top (i32.add (local.get $top) (i32.const 8)))
              (local.set $at (i32.add (local.get $at) (i32.const 1)))
              (br $fetch))
            ;; push n, behind the label of its block
            (i64.store (local.get $top) (local.get $n))
            (local.set $top (i32.add (local.get $top) (i32.const 8)))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br $fetch))
          (local.set $top (i32.sub (local.get $top) (i32.const 8)))
          (i64.store (i32.sub (local.get $top) (i32.const 8))
            (i64.mul (i64.load (i32.sub (local.get $top) (i32.const 8))) (i64.load (local.get $top))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $fetch))
        (local.set $top (i32.sub (local.get $top) (i32.const 8)))
        (i64.store (i32.sub (local.get $top) (i32.const 8))
          (i64.add (i64.load (i32.sub (local.get $top) (i32.const 8))) (i64.load (local.get $top))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $fetch))
      (local.set $top (i32.sub (local.get $top) (i32.const 8)))
      (local.set $sum (i64.load (local.get $top)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $fetch))
    ;; count down
    (local.set $n (i64.sub (local.get $n) (i64.const 1)))
    (local.set $at (select (i32.const 8) (i32.const 0) (i64.eqz (local.get $n))))
    (br $fetch))
    ;; mix
    (i64.store (i32.sub (local.get $top) (i32.const 8)) (call $mix (i64.load (i32.sub (local.get $top) (i32.const 8)))))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (br $fetch)))
    (local.get $sum)))
