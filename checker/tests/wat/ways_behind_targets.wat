;; Calls that are followed, in each function in another way, by a block with another call and a write before it, which a
;; clone that goes on from the first call must not pass over.
(module
  (import "host" "wait" (func $wait (param i32) (result i32)))
  (memory 1)
  (global $writes (mut i32) (i32.const 0))
  (tag $thrown)

  (func $write
    (global.set $writes (i32.add (global.get $writes) (i32.const 1))))

  (func (export "branch") (result i32)
    (block $out
      (br_if $out (call $wait (i32.const 1)))
      (drop (call $wait (i32.const 2)))
      (br $out))
    (block
      (call $write)
      (drop (call $wait (i32.const 3))))
    (global.get $writes))

  (func (export "only_branch") (result i32)
    (block $out
      (block $in
        (drop (call $wait (i32.const 1)))
        (br $out))
      (unreachable))
    (block
      (call $write)
      (drop (call $wait (i32.const 2))))
    (global.get $writes))

  (func (export "table") (param i32) (result i32)
    (block $out
      (block $in
        (drop (call $wait (i32.const 1)))
        (br_table $in $in $out (local.get 0)))
      (return (i32.const 7)))
    (block
      (call $write)
      (drop (call $wait (i32.const 2))))
    (global.get $writes))

  (func (export "table_entry") (param i32) (result i32)
    (block $out
      (block $in
        (drop (call $wait (i32.const 1)))
        (br_table $in $out $in (local.get 0)))
      (return (i32.const 7)))
    (block
      (call $write)
      (drop (call $wait (i32.const 2))))
    (global.get $writes))

  (func (export "exception") (result i32)
    (block $out
      (try_table (catch_all $out)
        (drop (call $wait (i32.const 1)))
        (throw $thrown))
      (unreachable))
    (block
      (call $write)
      (drop (call $wait (i32.const 2))))
    (global.get $writes))

  (func (export "exception_behind") (param i32) (result i32)
    (drop (call $wait (i32.const 1)))
    (block $out
      (try_table (catch $thrown $out)
        (if (local.get 0) (then (throw $thrown))))
      (return (i32.const 7)))
    (block
      (call $write)
      (drop (call $wait (i32.const 2))))
    (global.get $writes))

  (func (export "alternative") (param i32) (result i32)
    (drop (call $wait (i32.const 1)))
    (if (local.get 0)
      (then (return (i32.const 7)))
      (else
        (call $write)
        (drop (call $wait (i32.const 2)))))
    (global.get $writes))

  (func (export "behind_an_arm") (param i32) (result i32)
    (if (local.get 0)
      (then (drop (call $wait (i32.const 1))))
      (else (return (i32.const 7))))
    (block
      (call $write)
      (drop (call $wait (i32.const 2))))
    (global.get $writes))

  (func (export "no_alternative") (param i32) (result i32)
    (drop (call $wait (i32.const 1)))
    (if (local.get 0) (then (return (i32.const 7))))
    (block
      (call $write)
      (drop (call $wait (i32.const 2))))
    (global.get $writes))

  (func (export "round") (param i32) (result i32)
    (local.get 0)
    (loop $again (param i32) (result i32)
      (call $write)
      (drop (call $wait (i32.const 1)))
      (i32.sub (i32.const 1))
      (br_if $again (local.tee 0) (local.get 0)))
    (i32.add (global.get $writes)))

  (func (export "left_and_entered_again") (param i32) (result i32)
    (loop $outer (param)
      (loop $inner
        (call $write)
        (br_if $inner (call $wait (i32.const 1))))
      (block
        (call $write)
        (br_if $outer (call $wait (i32.const 2)))))
    (global.get $writes))

  ;; Only the first turn of a clone's loop comes to its end: no way from the header leads to the call.
  (func (export "dead_for_all_others") (result i32)
    (loop
      (block (unreachable))
      (drop (call $wait (i32.const 1))))
    (block
      (call $write)
      (drop (call $wait (i32.const 2))))
    (global.get $writes))

  (func (export "left_at_the_end") (result i32)
    (loop $again
      (call $write)
      (br_if $again (call $wait (i32.const 1))))
    (block
      (call $write)
      (drop (call $wait (i32.const 2))))
    (global.get $writes))

  (func (export "caught_by_a_loop") (param i32) (result i32)
    (block $out
      (loop $again
        (call $write)
        (br_if $out (local.get 0))
        (local.set 0 (i32.const 1))
        (try_table (catch $thrown $again)
          (drop (call $wait (i32.const 1)))
          (throw $thrown))
        (unreachable)))
    (block
      (call $write)
      (drop (call $wait (i32.const 2))))
    (global.get $writes))

  (func (export "null") (param funcref) (result i32)
    (block $out
      (block $in
        (drop (call $wait (i32.const 1)))
        (drop (br_on_null $out (local.get 0))))
      (return (i32.const 7)))
    (block
      (call $write)
      (drop (call $wait (i32.const 2))))
    (global.get $writes))

  (func (export "round_within_a_turn") (param i32) (result i32)
    (loop $outer
      (call $write)
      (local.get 0)
      (loop $inner (param i32) (result i32)
        (call $write)
        (drop (call $wait (i32.const 1)))
        (i32.sub (i32.const 1))
        (br_if $inner (local.tee 0) (local.get 0)))
      (drop)
      (block
        (call $write)
        (br_if $outer (call $wait (i32.const 2)))))
    (global.get $writes)))
