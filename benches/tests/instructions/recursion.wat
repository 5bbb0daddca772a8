;; Fibonacci numbers by double recursion: hardly anything but calls.
(module
  (func $fibonacci (param $n i32) (result i32)
    (if (i32.lt_u (local.get $n) (i32.const 2)) (then (return (local.get $n))))
    (i32.add
      (call $fibonacci (i32.sub (local.get $n) (i32.const 1)))
      (call $fibonacci (i32.sub (local.get $n) (i32.const 2)))))
  (func (export "run") (param $turns i32) (result i32) (local $sum i32)
    (loop $turn
      (local.set $sum (i32.add (local.get $sum) (call $fibonacci (i32.const 15))))
      (br_if $turn (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (local.get $sum)))
