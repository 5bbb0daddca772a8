(module
  (import "wasi_snapshot_preview1" "fd_read"
    (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") $PAGES)
  ;; What it writes is never the same.
  (global $seed (mut i64) (i64.const 1))

  ;; An order lies at 16, the answer at 32; vectors at 0 and 8, counts of bytes at 40.
  (func $order (result i32)
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 9))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 40)))
    (i32.eq (i32.load (i32.const 40)) (i32.const 9)))
  (func $answer
    (i32.store (i32.const 8) (i32.const 32))
    (i32.store (i32.const 12) (i32.const 1))
    (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 40))))

  (func $next (result i64)
    (global.set $seed
      (i64.add (i64.mul (global.get $seed) (i64.const 6364136223846793005)) (i64.const 1442695040888963407)))
    (global.get $seed))

  ;; Every word above the first 64 KiB, `$stride` bytes apart.
  (func $over (param $stride i32)
    (local $place i64) (local $end i64) (local $value i64)
    (local.set $end (i64.shl (i64.extend_i32_u (memory.size)) (i64.const 16)))
    (local.set $place (i64.const 65536))
    (local.set $value (call $next))
    (loop $more
      (i64.store (i32.wrap_i64 (local.get $place)) (local.get $value))
      (local.set $value (i64.add (local.get $value) (i64.const 0x9e3779b97f4a7c15)))
      (local.set $place (i64.add (local.get $place) (i64.extend_i32_u (local.get $stride))))
      (br_if $more (i64.lt_u (local.get $place) (local.get $end)))))

  ;; One word in each of `$count` pages. Steps of a large odd number meet no page twice.
  (func $scatter (param $count i64)
    (local $pages i64) (local $page i64)
    (local.set $pages (i64.shl (i64.extend_i32_u (memory.size)) (i64.const 4)))
    (local.set $page (i64.shr_u (call $next) (i64.const 20)))
    (loop $more
      (local.set $page (i64.and
        (i64.add (local.get $page) (i64.const 0x9e3779b1))
        (i64.sub (local.get $pages) (i64.const 1))))
      (i64.store
        (i32.wrap_i64 (i64.add (i64.shl (local.get $page) (i64.const 12)) (i64.const 64)))
        (call $next))
      (local.set $count (i64.sub (local.get $count) (i64.const 1)))
      (br_if $more (i64.gt_s (local.get $count) (i64.const 0)))))

  (func (export "_start")
    (local $what i32) (local $count i64)
    (block $end
      (loop $again
        (br_if $end (i32.eqz (call $order)))
        (local.set $what (i32.load8_u (i32.const 16)))
        (local.set $count (i64.load (i32.const 17)))
        (if (i32.eq (local.get $what) (i32.const 0x66)) (then (call $over (i32.const 8))))
        (if (i32.eq (local.get $what) (i32.const 0x70)) (then (call $scatter (local.get $count))))
        (if (i32.eq (local.get $what) (i32.const 0x73))
          (then
            (call $over (i32.const 4096))
            (call $answer)
            (loop $sweep
              (call $over (i32.const 4096))
              (local.set $count (i64.sub (local.get $count) (i64.const 1)))
              (br_if $sweep (i64.gt_s (local.get $count) (i64.const 0))))))
        (call $answer)
        (br $again)))))
