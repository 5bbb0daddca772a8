;; Short functions that recur and have loops, which poll on the way back only.
(module
  (memory 1)
  ;; As compilers turn tail calls into loops: both ways round meet before they go back.
  (func $ackermann (export "ackermann") (param $m i32) (param $n i32) (result i32)
    (block $done
      (br_if $done (i32.eqz (local.get $m)))
      (loop $again
        (block $met
          (block $calls
            (br_if $calls (local.get $n))
            (local.set $n (i32.const 1))
            (br $met))
          (local.set $n
            (call $ackermann (local.get $m) (i32.sub (local.get $n) (i32.const 1)))))
        (br_if $again (local.tee $m (i32.sub (local.get $m) (i32.const 1))))))
    (i32.add (local.get $n) (i32.const 1)))

  ;; Each way goes back by itself, some having called, with an operand below the loop and by all branches that there are.
  (func $ways (export "ways") (param $n i32) (param $sum i64) (result i64) (local $i i32)
    (i64.const 7)
    (loop $again (result i64)
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (i32.store (i32.const 0) (local.get $i))
      (if (i32.lt_u (local.get $i) (i32.const 3))
        (then (br $again)))
      (local.set $sum (i64.add (local.get $sum) (i64.extend_i32_u (local.get $i))))
      (if (i32.and (local.get $n) (i32.const 1))
        (then
          (local.set $sum
            (call $ways (i32.shr_u (local.get $n) (i32.const 1)) (local.get $sum)))
          (local.set $n (i32.sub (local.get $n) (i32.const 1)))
          (br_if $again (i32.lt_u (local.get $i) (i32.const 5)))
          (block $other
            (br_table $again $other (i32.gt_u (local.get $i) (i32.const 7))))))
      (block $out
        (br_table $again $out (i32.gt_u (local.get $i) (i32.const 9))))
      (local.get $sum))
    (i64.add)))
