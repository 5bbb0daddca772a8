;; Parameters of an `if` without `else` are its results when the test fails; a safepoint inside has them parked.
(module
  (func $turns (param $left i32)
    (loop $again (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))
  (func (export "run") (param $first i32) (param $second i32) (param $test i32) (result i32 i32)
    local.get $first
    local.get $second
    local.get $test
    if (param i32 i32) (result i32 i32)
      i32.const 3
      call $turns
    end))
