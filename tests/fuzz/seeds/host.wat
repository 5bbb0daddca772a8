;; A program in calls of the host: files in a directory and in a volume, one of them without a name, a sleep, and its own snapshot.
(module
  (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_unlink_file" (func $path_unlink_file (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wsnap" "snapshot" (func $snapshot (result i32)))
  (import "wsnap" "resume_count" (func $resume_count (result i64)))
  (memory (export "memory") 1)
  (data (i32.const 0) "kept")
  (data (i32.const 16) "gone")
  ;; A buffer of 5000 bytes.
  (data (i32.const 32) "\00\10\00\00\88\13\00\00")
  ;; A sleep of a millisecond.
  (data (i32.const 144) "\01\00\00\00\00\00\00\00\40\42\0f")

  (func $open (param $directory i32) (param $name i32) (result i32)
    (drop (call $path_open (local.get $directory) (i32.const 0) (local.get $name) (i32.const 4) (i32.const 1)
      (i64.const 0x1fffffff) (i64.const 0) (i32.const 0) (i32.const 64)))
    (i32.load (i32.const 64)))

  (func $files (param $directory i32)
    (local $file i32)
    (local.set $file (call $open (local.get $directory) (i32.const 0)))
    (drop (call $fd_write (local.get $file) (i32.const 32) (i32.const 1) (i32.const 64)))
    (local.set $file (call $open (local.get $directory) (i32.const 16)))
    (drop (call $fd_write (local.get $file) (i32.const 32) (i32.const 1) (i32.const 64)))
    (drop (call $path_unlink_file (local.get $directory) (i32.const 16) (i32.const 4))))

  (func (export "_start")
    (local $turn i32)
    (i32.store8 (i32.const 5000) (i32.const 7))
    (call $files (i32.const 3))
    (call $files (i32.const 4))
    (loop $turns
      (drop (call $random_get (i32.const 256) (i32.const 100)))
      (drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 64)))
      (drop (call $poll_oneoff (i32.const 128) (i32.const 512) (i32.const 1) (i32.const 64)))
      (drop (call $snapshot))
      (drop (call $resume_count))
      (local.set $turn (i32.add (local.get $turn) (i32.const 1)))
      (br_if $turns (i32.lt_u (local.get $turn) (i32.const 1000))))))
