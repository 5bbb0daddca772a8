;; References that come from nowhere but a table wait on the operand stack while something loops.
(module
  (table $functions 2 funcref)
  (table $externs 1 externref)
  (elem (table $functions) (i32.const 0) func $wait)
  (func $wait (local $turns i32)
    (loop $again
      (br_if $again (i32.lt_u (local.tee $turns (i32.add (local.get $turns) (i32.const 1))) (i32.const 3)))))
  (func (export "_start")
    (i32.const 1)
    (table.get $functions (i32.const 0))
    (i32.const 0)
    (table.get $externs (i32.const 0))
    (call $wait)
    (table.set $externs)
    (table.set $functions)
    (call_indirect $functions (i32.const 1))))
