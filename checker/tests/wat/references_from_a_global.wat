;; A reference that comes from nowhere but a global waits on the operand stack while something loops.
(module
  (global $function (mut funcref) (ref.func $wait))
  (table $functions 1 funcref)
  (func $wait (local $turns i32)
    (loop $again
      (br_if $again (i32.lt_u (local.tee $turns (i32.add (local.get $turns) (i32.const 1))) (i32.const 3)))))
  (func (export "_start")
    (i32.const 0)
    (global.get $function)
    (call $wait)
    (table.set $functions)
    (call_indirect $functions (i32.const 0))))
