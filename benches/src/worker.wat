(module
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wsnap" "snapshot" (func $snapshot (result i32)))
  ;; The first 64 KiB are for the vector of `fd_write` at 0, the text at 16 and the time at 64.
  (memory (export "memory") $WASM_PAGES)

  (func $now (result i64)
    (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 64)))
    (i64.load (i32.const 64)))

  ;; 16 hexadecimal digits and a line feed.
  (func $print (param $value i64) (local $place i32) (local $digit i32)
    (local.set $place (i32.const 15))
    (loop $digits
      (local.set $digit (i32.and (i32.wrap_i64 (local.get $value)) (i32.const 15)))
      (i32.store8 offset=16 (local.get $place)
        (i32.add (local.get $digit)
          (select (i32.const 87) (i32.const 48) (i32.gt_u (local.get $digit) (i32.const 9)))))
      (local.set $value (i64.shr_u (local.get $value) (i64.const 4)))
      (local.set $place (i32.sub (local.get $place) (i32.const 1)))
      (br_if $digits (i32.ge_s (local.get $place) (i32.const 0))))
    (i32.store8 (i32.const 32) (i32.const 10))
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 17))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 40))))

  ;; Fills a page of 4 KiB with what is nowhere else.
  (func $fill (param $page i64) (param $value i64) (local $place i32) (local $end i32)
    (local.set $place (i32.wrap_i64 (i64.add (i64.const 65536) (i64.shl (local.get $page) (i64.const 12)))))
    (local.set $end (i32.add (local.get $place) (i32.const 4096)))
    (loop $words
      (local.set $value (i64.mul (i64.add (local.get $value) (i64.const 1442695040888963407)) (i64.const 6364136223846793005)))
      (i64.store (local.get $place) (local.get $value))
      (local.set $place (i32.add (local.get $place) (i32.const 8)))
      (br_if $words (i32.lt_u (local.get $place) (local.get $end)))))

  ;; Some 20 microseconds of work.
  (func $turn (param $value i64) (result i64) (local $left i32)
    (local.set $left (i32.const 20000))
    (loop $step
      (local.set $value (i64.add (i64.mul (local.get $value) (i64.const 6364136223846793005)) (i64.const 1442695040888963407)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $step (local.get $left)))
    (local.get $value))

  (func (export "_start")
    (local $page i64) (local $begin i64) (local $time i64) (local $before i64) (local $gap i64)
    (local $turns i64) (local $written i64) (local $due i64) (local $budget i32) (local $value i64)
    (loop $pages
      (call $fill (local.get $page) (local.get $page))
      (local.set $page (i64.add (local.get $page) (i64.const 1)))
      (br_if $pages (i64.le_u (local.get $page) (i64.const $LAST_PAGE))))
    ;; The first image, of all of it, is no part of what is measured.
    (drop (call $snapshot))
    (local.set $begin (call $now))
    (local.set $before (local.get $begin))
    (loop $turns_
      (local.set $value (call $turn (local.get $value)))
      (local.set $turns (i64.add (local.get $turns) (i64.const 1)))
      (local.set $time (call $now))
      (if (i64.gt_u (i64.sub (local.get $time) (local.get $before)) (local.get $gap))
        (then (local.set $gap (i64.sub (local.get $time) (local.get $before)))))
      (local.set $due (i64.div_u
        (i64.mul (i64.div_u (i64.sub (local.get $time) (local.get $begin)) (i64.const 1000)) (i64.const $PAGES_A_SECOND))
        (i64.const 1000000)))
      ;; After a pause it catches up little by little. Steps of an odd number meet all pages before they meet one twice.
      (local.set $budget (i32.const 64))
      (block $enough
        (loop $write
          (br_if $enough (i64.ge_u (local.get $written) (local.get $due)))
          (br_if $enough (i32.eqz (local.get $budget)))
          (call $fill
            (i64.and (i64.mul (local.get $written) (i64.const $STEP)) (i64.const $LAST_PAGE))
            (i64.add (local.get $written) (i64.const 0x10000000000)))
          (local.set $written (i64.add (local.get $written) (i64.const 1)))
          (local.set $budget (i32.sub (local.get $budget) (i32.const 1)))
          (br $write)))
      (local.set $before (call $now))
      (br_if $turns_ (i64.lt_u (i64.sub (local.get $before) (local.get $begin)) (i64.const $DURATION_NS))))
    (call $print (local.get $turns))
    (call $print (local.get $written))
    (call $print (local.get $gap))
    (call $print (i64.sub (local.get $before) (local.get $begin)))
    ;; So that the work cannot be left out.
    (call $print (local.get $value))))
