;; Loops that pass parameters on: values, and references of a type that only some ways to them have.
(module
  (type $nothing (func))
  (func $something)
  (elem declare func $something)
  (func $turns (param $left i32)
    (loop $again (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))
  (func (export "values") (param $turns i32) (result i32 i32 i64)
    i32.const 1
    i32.const 2
    i64.const 3
    loop $again (param i32 i32 i64) (result i32 i32 i64)
      (call $turns (i32.const 2))
      (local.set $turns (i32.sub (local.get $turns) (i32.const 1)))
      (br_if $again (local.get $turns))
    end)
  (func (export "references") (param $turns i32) (result i32)
    i32.const 8
    ref.func $something
    loop $again (param funcref) (result i32)
      ref.is_null
      local.get $turns
      i32.add
      call $turns
      ref.null func
      (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))
      br_if $again
      drop
      local.get $turns
    end
    i32.add)
  (func (export "known functions") (param $turns i32) (result i32)
    ref.func $something
    loop $again (param (ref $nothing)) (result i32)
      call_ref $nothing
      ref.func $something
      (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))
      br_if $again
      ref.is_null
    end))
