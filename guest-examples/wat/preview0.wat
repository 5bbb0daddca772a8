;; Imports wasi_unstable, as programs of 2019 did: a file in the first granted directory (if there is one), records of
;; it, seeking by the old numbers, sleeping. All that the host answers and that is the same everywhere is hashed.
(module
  (import "wasi_unstable" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_unstable" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_unstable" "fd_seek" (func $fd_seek (param i32 i64 i32 i32) (result i32)))
  (import "wasi_unstable" "fd_filestat_get" (func $fd_filestat_get (param i32 i32) (result i32)))
  (import "wasi_unstable" "path_filestat_get"
    (func $path_filestat_get (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_unstable" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_unstable" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "f")

  ;; One step of the checksum: any wrong bit in either operand changes the result.
  (func $mix (param $hash i64) (param $value i64) (result i64)
    (i64.mul
      (i64.rotl (i64.xor (local.get $hash) (local.get $value)) (i64.const 29))
      (i64.const 0x9E3779B97F4A7C15)))

  ;; Prints a checksum as 16 hexadecimal digits and a newline. Uses bytes 0 to 40 of memory.
  (func $print (param $value i64)
    (local $position i32) (local $digit i32)
    (local.set $position (i32.const 31))
    (loop $next
      (local.set $digit (i32.wrap_i64 (i64.and (local.get $value) (i64.const 15))))
      (i32.store8 (local.get $position)
        (i32.add (local.get $digit)
          (select (i32.const 48) (i32.const 87) (i32.lt_u (local.get $digit) (i32.const 10)))))
      (local.set $value (i64.shr_u (local.get $value) (i64.const 4)))
      (local.set $position (i32.sub (local.get $position) (i32.const 1)))
      (br_if $next (i32.ge_u (local.get $position) (i32.const 16))))
    (i32.store8 (i32.const 32) (i32.const 10))
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 17))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))

  (global $hash (mut i64) (i64.const 0))
  (func $note (param $value i64)
    (global.set $hash (call $mix (global.get $hash) (local.get $value))))
  (func $note32 (param $value i32)
    (call $note (i64.extend_i32_u (local.get $value))))

  ;; Moves the position and notes where it is then.
  (func $seek (param $fd i32) (param $offset i64) (param $whence i32)
    (call $note32
      (call $fd_seek (local.get $fd) (local.get $offset) (local.get $whence) (i32.const 96)))
    (call $note (i64.load (i32.const 96))))

  ;; Notes type, links and size of the record at 128.
  (func $note_record
    (call $note32 (i32.load8_u (i32.const 144)))
    (call $note32 (i32.load (i32.const 148)))
    (call $note (i64.load (i32.const 152))))

  ;; Appends a line of 8 bytes to the file, reads it again, and asks for the file's records.
  (func $file (param $fd i32) (param $turn i32)
    (call $seek (local.get $fd) (i64.const 0) (i32.const 1))
    (i64.store (i32.const 704) (i64.add (i64.const 0x0a30303030303030) (i64.extend_i32_u (local.get $turn))))
    (i32.store (i32.const 80) (i32.const 704))
    (i32.store (i32.const 84) (i32.const 8))
    (call $note32 (call $fd_write (local.get $fd) (i32.const 80) (i32.const 1) (i32.const 88)))
    (call $seek (local.get $fd) (i64.const -8) (i32.const 0))
    (i32.store (i32.const 80) (i32.const 720))
    (call $note32 (call $fd_read (local.get $fd) (i32.const 80) (i32.const 1) (i32.const 88)))
    (call $note (i64.load (i32.const 720)))
    (call $seek (local.get $fd) (i64.const 4) (i32.const 2))
    (call $note32 (call $fd_filestat_get (local.get $fd) (i32.const 128)))
    (call $note_record)
    (call $note32
      (call $path_filestat_get (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))
    (call $note_record))

  ;; Sleeps for a millisecond; the second subscription would take an hour.
  (func $sleep
    (i64.store (i32.const 256) (i64.const 11))
    (i32.store (i32.const 280) (i32.const 1))
    (i64.store (i32.const 288) (i64.const 1000000))
    (i64.store (i32.const 312) (i64.const 12))
    (i32.store (i32.const 336) (i32.const 1))
    (i64.store (i32.const 344) (i64.const 3600000000000))
    (call $note32 (call $poll_oneoff (i32.const 256) (i32.const 512) (i32.const 2) (i32.const 640)))
    (call $note32 (i32.load (i32.const 640)))
    (call $note (i64.load (i32.const 512)))
    (call $note (i64.load (i32.const 520))))

  (func (export "_start")
    (local $turn i32) (local $opened i32)
    ;; To be created, emptied, read and written.
    (local.set $opened
      (i32.eqz
        (call $path_open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 9)
          (i64.const 0x42) (i64.const 0) (i32.const 0) (i32.const 72))))
    (loop $again
      (if (local.get $opened)
        (then (call $file (i32.load (i32.const 72)) (local.get $turn))))
      (call $sleep)
      (if (i32.eqz (i32.and (local.get $turn) (i32.const 3)))
        (then (call $print (global.get $hash))))
      (br_if $again
        (i32.lt_u (local.tee $turn (i32.add (local.get $turn) (i32.const 1))) (i32.const 12)))))
)
