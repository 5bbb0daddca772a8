;; Calls of the host with arguments and results of every type, directly, through tables and in tail position.
(module
  (type $wide (func (param i32 i64 f32 f64 v128 funcref externref) (result i32 i64 f32 f64 v128 funcref externref)))
  (import "host" "wide" (func $wide (type $wide)))
  (import "host" "pair" (func $pair (param i32 i32) (result i32)))
  (table funcref (elem $pair $other))
  (func $other (param i32 i32) (result i32) (i32.sub (local.get 0) (local.get 1)))
  (func (export "wide") (type $wide)
    i64.const 7
    (call $wide (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5) (local.get 6))
    (call $wide)
    (drop (ref.is_null))
    (drop (ref.is_null))
    (call $pair (i32.const 4) (i32.const 5))
    drop drop drop drop drop drop
    return_call $wide-again)
  (func $wide-again (type $wide-result)
    (call $wide (i32.const 0) (i64.const 1) (f32.const 2) (f64.const 3) (v128.const i64x2 4 5) (ref.func $pair) (ref.null extern)))
  (type $wide-result (func (result i32 i64 f32 f64 v128 funcref externref)))
  (func (export "indirectly") (param $which i32) (result i32)
    (i32.mul
      (call_indirect (param i32 i32) (result i32) (i32.const 1) (i32.const 2) (local.get $which))
      (call $pair (i32.const 3) (local.get $which))))
  (func (export "in tail position") (param $which i32) (result i32)
    (return_call $pair (local.get $which) (i32.const 9))))
