//! The guest that is resumed: some functions that call each other, and a memory in which every page holds something.

use crate::error::{BenchError, at};
use rustix::fs::{Advice, fadvise};
use std::fmt::Write;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use wsnap::snapshots::{Store, StoredImage, StoredMemory, Value};
use wsnap::wasi::{Grants, SavedState, StandardStreams, Stdio, Wasi, WasiConfig};
use wsnap::{
    Call, Engine, EngineConfig, Instance, Options, Outcome, PreparedImage, Program, WASI_SECTION,
    WorkingSet,
};

/// Pages of 4 KiB that the guest reads for its result, spread over the memory.
pub const PAGES_READ: u32 = 1000;

/// Where the guest writes what the clock showed: at its first instruction and when it had its result.
const STAMPS: [usize; 2] = [16, 24];

/// Where the guest says what to read, a byte at 0, and finds how much there was.
const BUFFER: u32 = 32;

/// The least common multiple of all strides is the memory, so no page is read twice unless it has fewer.
const STRIDE_PAGES: u32 = 40_503;

/// What is resumed.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Size of the memory in MiB, a power of two.
    pub memory_mib: u64,
    /// How many activations of the recursion there are, without the outermost and the innermost one.
    pub depth: u32,
    /// How many functions call each other in turn.
    pub functions: u32,
}

/// An image of the guest, ready to be resumed.
pub struct Subject {
    shape: Shape,
    /// The image, prepared.
    pub prepared: PreparedImage,
    program: Program,
    state: SavedState,
}

/// What one resumed instance did.
pub struct Resumed {
    /// From the call of `resume` until the guest's first instruction had been executed.
    pub first_instruction: Duration,
    /// From the call of `resume` until the guest had read its pages.
    pub first_result: Duration,
}

/// A module in text format. The innermost function stands at a loop when it is stopped. Its next instructions read the
/// clock, then come the pages, unless there is something to read, then the clock again, then everybody returns.
pub fn guest(shape: Shape) -> String {
    let Shape {
        memory_mib,
        depth,
        functions,
    } = shape;
    let pages = memory_mib * 16;
    let last = ((memory_mib << 20) - 1) as u32;
    let [first, second] = STAMPS;
    let mut text = format!(
        r#"(module
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") {pages} {pages})
  (func (export "main") (result i64)
    (memory.fill (i32.const 0) (i32.const 1) (i32.const {last}))
    (i64.store (i32.const {first}) (i64.const 0))
    (call $f0 (i32.const {depth})))
  (func $innermost (result i64) (local $turn i32) (local $n i32) (local $sum i64)
    (loop $wait
      (if (i32.eqz (local.get $turn)) (then (local.set $turn (i32.const 1)) (br $wait))))
    (drop (call $clock (i32.const 0) (i64.const 1) (i32.const {first})))
    (i64.store (i32.const {BUFFER}) (i64.const {one_byte}))
    (drop (call $read (i32.const 0) (i32.const {BUFFER}) (i32.const 1) (i32.const {BUFFER})))
    (if (i32.load (i32.const {BUFFER})) (then (return (i64.const 0))))
    (loop $read
      (local.set $sum (i64.add (local.get $sum) (i64.load offset=2048
        (i32.and (i32.mul (local.get $n) (i32.const {stride})) (i32.const {mask})))))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $read (i32.lt_u (local.get $n) (i32.const {PAGES_READ}))))
    (drop (call $clock (i32.const 0) (i64.const 1) (i32.const {second})))
    (local.get $sum))
"#,
        one_byte = 1_u64 << 32,
        stride = STRIDE_PAGES * 4096,
        mask = (last ^ 4095) as i32,
    );
    for function in 0..functions {
        let next = (function + 1) % functions;
        let _ = write!(
            text,
            r#"  (func $f{function} (param $n i32) (result i64) (local $kept i64)
    (local.set $kept (i64.extend_i32_u (local.get $n)))
    (if (i32.eqz (local.get $n)) (then (return (call $innermost))))
    (i64.add (local.get $kept) (call $f{next} (i32.sub (local.get $n) (i32.const 1)))))
"#
        );
    }
    text.push(')');
    text
}

/// Without anything to read from standard input the guest reads its pages.
fn silent() -> StandardStreams {
    StandardStreams {
        stdin: Stdio::Closed,
        stdout: Stdio::Closed,
        stderr: Stdio::Closed,
    }
}

fn with_input(file: File) -> StandardStreams {
    StandardStreams {
        stdin: Stdio::Descriptor(file.into()),
        ..silent()
    }
}

/// Something to read.
fn zeros() -> Result<File, BenchError> {
    let path = Path::new("/dev/zero");
    File::open(path).map_err(at(path))
}

/// A guest of this shape that has run up to its innermost loop and stands still there.
pub fn stopped(shape: Shape) -> Result<Instance, BenchError> {
    let wasm = guest(shape).into_bytes();
    // Only such code can be stopped at the second safepoint. Images do not depend on it, and what is measured runs
    // the default.
    let countable = Engine::new(&EngineConfig {
        rewriting: Options {
            countable_safepoints: true,
            ..Options::default()
        },
        ..EngineConfig::default()
    })?;
    let program = Program::new(&countable, wasm)?;
    let wasi = Wasi::new(WasiConfig {
        streams: with_input(zeros()?),
        ..WasiConfig::default()
    })?;
    let call = Call {
        export: "main".into(),
        arguments: Vec::new(),
    };
    let mut instance = program.start(wasi, call)?;
    // At the loop's first turn nothing has changed yet, at the second the guest is ready to go on.
    instance.stop_at_safepoint(2)?;
    let outcome = instance.run()?;
    if !matches!(outcome, Outcome::Suspended(_)) {
        return Err(BenchError::Unexpected(format!("{outcome:?}")));
    }
    Ok(instance)
}

impl Subject {
    /// Runs the guest up to its innermost loop, stores it in a store in `folder` and prepares the image.
    pub fn new(shape: Shape, folder: &Path) -> Result<Self, BenchError> {
        let mut instance = stopped(shape)?;
        let store = Store::open(folder)?;
        let id = instance.snapshot()?.store(&store)?;
        drop(instance);
        Self::stored(shape, store.load(id)?)
    }

    /// Prepares an image of a guest of this shape.
    pub fn stored(shape: Shape, image: StoredImage) -> Result<Self, BenchError> {
        let wasm = guest(shape).into_bytes();
        let program = Program::new(&Engine::new(&EngineConfig::default())?, wasm)?;
        Self::of_image(shape, program, Arc::new(image))
    }

    fn of_image(
        shape: Shape,
        program: Program,
        image: Arc<StoredImage>,
    ) -> Result<Self, BenchError> {
        let section = image.manifest().host.get(WASI_SECTION);
        let state = section.ok_or_else(|| BenchError::NoWasiState("the guest".into()))?;
        Ok(Self {
            shape,
            state: SavedState::decode(state)?,
            prepared: program.prepare(image)?,
            program,
        })
    }

    /// The host state for one more instance.
    pub fn wasi(&self) -> Result<Wasi, BenchError> {
        let grants = Grants {
            streams: silent(),
            ..Grants::default()
        };
        Ok(Wasi::restore(&self.state, grants)?)
    }

    /// One more instance of the prepared image.
    pub fn resume(&self) -> Result<Instance, BenchError> {
        Ok(self.prepared.resume(self.wasi()?)?)
    }

    /// Resumes the prepared image, runs it to its end and says what the guest noted down.
    pub fn run_prepared(&self) -> Result<Resumed, BenchError> {
        let wasi = self.wasi()?;
        let start = SystemTime::now();
        self.finish(start, self.prepared.resume(wasi)?)
    }

    /// The same without preparation.
    pub fn run_unprepared(&self) -> Result<Resumed, BenchError> {
        let wasi = self.wasi()?;
        let start = SystemTime::now();
        self.finish(start, self.program.resume(self.prepared.image(), wasi)?)
    }

    /// Resumes the prepared image after its pages have been dropped from the page cache, with those of `set` read ahead if
    /// there is one. Reading ahead is part of the times.
    pub fn run_cold(&self, set: Option<&WorkingSet>) -> Result<Resumed, BenchError> {
        for layer in self
            .prepared
            .image()
            .memories()
            .iter()
            .flat_map(StoredMemory::layers)
        {
            let dropped = fadvise(layer.file(), 0, None, Advice::DontNeed);
            dropped.map_err(|errno| BenchError::Io {
                path: layer.path().to_owned(),
                source: errno.into(),
            })?;
        }
        let wasi = self.wasi()?;
        let start = SystemTime::now();
        if let Some(set) = set {
            self.prepared.prefetch(set)?;
        }
        self.finish(start, self.prepared.resume(wasi)?)
    }

    /// Which pages a run needs.
    pub fn working_set(&self) -> Result<Option<WorkingSet>, BenchError> {
        let mut instance = self.prepared.resume_watched(self.wasi()?)?;
        instance.run()?;
        Ok(instance.working_set())
    }

    /// Resumes the prepared image and lets it return behind its first instruction.
    pub fn run_first_instruction(&self) -> Result<Duration, BenchError> {
        let grants = Grants {
            streams: with_input(zeros()?),
            ..Grants::default()
        };
        let wasi = Wasi::restore(&self.state, grants)?;
        let start = SystemTime::now();
        let mut instance = self.prepared.resume(wasi)?;
        let outcome = instance.run()?;
        if !matches!(outcome, Outcome::Returned(_)) {
            return Err(BenchError::Unexpected(format!("{outcome:?}")));
        }
        let [stamp, result] = Self::stamps(start, &mut instance);
        // The places in the memory are zero unless the guest has written to them.
        let executed = stamp > Duration::ZERO && result == Duration::ZERO;
        executed
            .then_some(stamp)
            .ok_or_else(|| BenchError::Unexpected("it did not return where it should".into()))
    }

    fn finish(&self, start: SystemTime, mut instance: Instance) -> Result<Resumed, BenchError> {
        let outcome = instance.run()?;
        let sum = 0x0101_0101_0101_0101_u64.wrapping_mul(PAGES_READ.into());
        let expected = sum as i64 + (1..=i64::from(self.shape.depth)).sum::<i64>();
        match &outcome {
            Outcome::Returned(values) if *values == [Value::I64(expected)] => {}
            other => return Err(BenchError::Unexpected(format!("{other:?}"))),
        }
        let [first_instruction, first_result] = Self::stamps(start, &mut instance);
        Ok(Resumed {
            first_instruction,
            first_result,
        })
    }

    /// What the guest has noted down, as time since `start`.
    fn stamps(start: SystemTime, instance: &mut Instance) -> [Duration; 2] {
        let memory = instance.memory(0).unwrap_or_default();
        STAMPS.map(|place| {
            let bytes = memory.get(place..).and_then(|rest| rest.first_chunk());
            let stamp = Duration::from_nanos(u64::from_le_bytes(*bytes.unwrap_or(&[0; 8])));
            let start = start.duration_since(SystemTime::UNIX_EPOCH);
            stamp.saturating_sub(start.unwrap_or_default())
        })
    }
}
