//! Programs that compute for a while and print as they go, for tests of whatever keeps programs running.

/// What a program does beside its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// How many lines it prints.
    pub rounds: u32,
    /// How many steps it computes for each of them: a million take about a millisecond.
    pub steps: u32,
    /// It traps before the line of this number, counted from 0.
    pub traps_at: Option<u32>,
    /// It traps before a line with a probability of so many in 2³².
    pub traps_with: u32,
    /// It exits with this code at its end.
    pub exit_code: u32,
    /// It sleeps so long before each line, in milliseconds.
    pub sleep_ms: u32,
    /// It writes each line to standard error too: whatever it computes twice is seen there twice.
    pub echoes: bool,
}

impl Job {
    /// Prints so many lines, each after so many steps, and does nothing else.
    #[must_use]
    pub const fn new(rounds: u32, steps: u32) -> Self {
        Self {
            rounds,
            steps,
            traps_at: None,
            traps_with: 0,
            exit_code: 0,
            sleep_ms: 0,
            echoes: false,
        }
    }

    /// The text of the program. What it prints depends on `rounds` and `steps` only: digits of a sequence, each of whose
    /// members follows from all before.
    #[must_use]
    pub fn wat(&self) -> String {
        let Self {
            rounds,
            steps,
            traps_at,
            traps_with,
            exit_code,
            sleep_ms,
            echoes,
        } = *self;
        let echoes = u32::from(echoes);
        let traps_at = traps_at.unwrap_or(u32::MAX);
        let sleep_ns = u64::from(sleep_ms) * 1_000_000;
        format!(
            r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\09\00\00\00")
  (func $print (param $value i32) (local $index i32) (local $digit i32)
    (loop $digits
      (local.set $digit (i32.and (i32.const 15)
        (i32.shr_u (local.get $value) (i32.mul (local.get $index) (i32.const 4)))))
      (i32.store8 offset=16 (local.get $index)
        (i32.add (local.get $digit)
          (select (i32.const 87) (i32.const 48) (i32.gt_u (local.get $digit) (i32.const 9)))))
      (local.set $index (i32.add (local.get $index) (i32.const 1)))
      (br_if $digits (i32.lt_u (local.get $index) (i32.const 8))))
    (i32.store8 (i32.const 24) (i32.const 10))
    (if (i32.const {echoes}) (then (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 32)))))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32))))
  (func $compute (param $value i32) (result i32) (local $left i32)
    (local.set $left (i32.const {steps}))
    (loop $step
      (local.set $value (i32.add (i32.mul (local.get $value) (i32.const 1664525)) (i32.const 1013904223)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $step (local.get $left)))
    (local.get $value))
  (func $perhaps_trap (param $round i32)
    (if (i32.eq (local.get $round) (i32.const {traps_at})) (then (unreachable)))
    (drop (call $random (i32.const 40) (i32.const 4)))
    (if (i32.lt_u (i32.load (i32.const 40)) (i32.const {traps_with})) (then (unreachable))))
  (func $sleep
    (if (i64.eqz (i64.const {sleep_ns})) (then (return)))
    (i64.store (i32.const 64) (i64.const 0))
    (i64.store (i32.const 72) (i64.const 0))
    (i64.store (i32.const 80) (i64.const 1))
    (i64.store (i32.const 88) (i64.const {sleep_ns}))
    (i64.store (i32.const 96) (i64.const 0))
    (i64.store (i32.const 104) (i64.const 0))
    (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 36))))
  (func (export "_start") (local $round i32) (local $value i32)
    (loop $rounds
      (local.set $value (call $compute (local.get $value)))
      (call $sleep)
      (call $perhaps_trap (local.get $round))
      (call $print (local.get $value))
      (local.set $round (i32.add (local.get $round) (i32.const 1)))
      (br_if $rounds (i32.lt_u (local.get $round) (i32.const {rounds}))))
    (if (i32.const {exit_code}) (then (call $exit (i32.const {exit_code}))))))"#
        )
    }

    /// The same work without traps, sleep and exit code: what it prints is what the job is to print in the end.
    #[must_use]
    pub fn undisturbed(&self) -> Self {
        Self::new(self.rounds, self.steps)
    }
}
