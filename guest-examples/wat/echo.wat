;; Copies standard input to standard output, small letters changed to capitals, then prints a checksum of all
;; of it.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)

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

  ;; Reads at most 512 bytes to address 256 and returns how many came; 0 is the end.
  (func $read (result i32)
    (i32.store (i32.const 48) (i32.const 256))
    (i32.store (i32.const 52) (i32.const 512))
    (if (call $fd_read (i32.const 0) (i32.const 48) (i32.const 1) (i32.const 56)) (then (unreachable)))
    (i32.load (i32.const 56)))
  (func $write_all (param $length i32)
    (local $done i32)
    (loop $rest
      (i32.store (i32.const 48) (i32.add (i32.const 256) (local.get $done)))
      (i32.store (i32.const 52) (i32.sub (local.get $length) (local.get $done)))
      (if (call $fd_write (i32.const 1) (i32.const 48) (i32.const 1) (i32.const 56)) (then (unreachable)))
      (local.set $done (i32.add (local.get $done) (i32.load (i32.const 56))))
      (br_if $rest (i32.lt_u (local.get $done) (local.get $length)))))
  (func $upper (param $length i32) (param $hash i64) (result i64)
    (local $at i32) (local $byte i32)
    (loop $next
      (local.set $byte (i32.load8_u offset=256 (local.get $at)))
      (if (i32.lt_u (i32.sub (local.get $byte) (i32.const 97)) (i32.const 26))
        (then (local.set $byte (i32.sub (local.get $byte) (i32.const 32)))))
      (i32.store8 offset=256 (local.get $at) (local.get $byte))
      (local.set $hash (call $mix (local.get $hash) (i64.extend_i32_u (local.get $byte))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $length))))
    (local.get $hash))
  (func (export "_start")
    (local $length i32) (local $hash i64)
    (block $end
      (loop $again
        (br_if $end (i32.eqz (local.tee $length (call $read))))
        (local.set $hash (call $upper (local.get $length) (local.get $hash)))
        (call $write_all (local.get $length))
        (br $again)))
    (call $print (local.get $hash)))
)
