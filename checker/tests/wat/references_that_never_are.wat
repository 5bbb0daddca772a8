;; Behind blocks that are never left there is code with references on its operand stack, which come from nowhere.
(module
  (func $wait (local $turns i32)
    (loop $again
      (br_if $again (i32.lt_u (local.tee $turns (i32.add (local.get $turns) (i32.const 1))) (i32.const 3)))))
  (func (export "function")
    (block (result funcref) (unreachable))
    (call $wait)
    (drop))
  (func (export "extern")
    (loop $again (result externref)
      (call $wait)
      (br $again))
    (call $wait)
    (drop)))
