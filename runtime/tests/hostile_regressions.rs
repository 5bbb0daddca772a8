//! One test for each thing that an image from a stranger once could do.

#[allow(dead_code, reason = "shared with tests that use all of it")]
mod common;

use common::{Output, engine, start};
use std::fmt::Write as _;
use std::sync::Arc;
use wsnap::snapshots::{
    Elements, Exception, Frame, FrameState, Manifest, MemoryUpdate, Store, StoredImage, Value,
};
use wsnap::wasi::{Wasi, WasiConfig};
use wsnap::{Call, Error, LimitReached, Limits, Outcome, Program};

/// A stopped program, to be changed and stored.
struct Stopped {
    program: Program,
    store: Store,
    manifest: Manifest,
    _directory: tempfile::TempDir,
}

impl Stopped {
    /// Runs the export `run` of the module up to its first safepoint.
    fn new(text: &str) -> Self {
        let program =
            Program::new(&engine(None, false, false), text.into()).expect("the module compiles");
        let directory = tempfile::tempdir().expect("there is room for a store");
        let store = Store::open(directory.path().join("store")).expect("a store can be made");
        let call = Call {
            export: "run".into(),
            arguments: vec![],
        };
        let mut instance = start(&program, call, &Output::new(), false);
        instance
            .stop_at_safepoint(1)
            .expect("its safepoints can be counted");
        let outcome = instance.run().expect("the program runs");
        assert!(matches!(outcome, Outcome::Suspended(_)), "{outcome:?}");
        let snapshot = instance.snapshot().expect("it can be stored");
        let id = snapshot.store(&store).expect("the store takes it");
        let manifest = store.load(id).expect("it is there").manifest().clone();
        Self {
            program,
            store,
            manifest,
            _directory: directory,
        }
    }

    /// The image that the manifest says, its memories zero.
    fn image(&self) -> Arc<StoredImage> {
        let memories = &self.manifest.memories;
        let updates = memories.iter().map(|memory| MemoryUpdate {
            base: None,
            byte_len: memory.byte_len().expect("a possible size"),
            dirty: &[],
            source: &NOTHING,
        });
        let updates: Vec<MemoryUpdate<'_>> = updates.collect();
        let published = self.store.publish_update(self.manifest.clone(), &updates);
        Arc::new(published.expect("the store takes it").image)
    }

    fn wasi() -> Wasi {
        Wasi::new(WasiConfig::default()).expect("the host state can be set up")
    }

    /// Why the image is refused, when it is prepared or resumed.
    fn refusal(&self) -> String {
        let image = self.image();
        let prepared = self.program.prepare(image.clone()).map(drop);
        let resumed = self.program.resume(&image, Self::wasi());
        let run = resumed.and_then(|mut instance| instance.run()).map(drop);
        match (prepared, run) {
            (Err(Error::Image(prepared)), Err(Error::Image(run))) => {
                assert_eq!(prepared, run);
                run
            }
            other => panic!("{other:?}"),
        }
    }
}

static NOTHING: Vec<u8> = Vec::new();

/// An image without frames that says it runs a function which the rewriter had added: it was called with arguments of
/// the stranger's choice.
#[test]
fn a_function_that_the_rewriter_added_cannot_be_what_an_image_runs() {
    let mut stopped = Stopped::new(
        r#"(module (func (export "run") (loop $l (call $g) (br $l))) (func $g (loop $l (br_if $l (i32.const 0)))))"#,
    );
    stopped.manifest.frames.clear();
    for name in [
        "wsnap:safepoint",
        "wsnap:start",
        "wsnap:drop-again",
        "wsnap:function-1",
    ] {
        name.clone_into(&mut stopped.manifest.invocation.export);
        let refusal = stopped.refusal();
        assert!(
            refusal.contains("which the module does not export"),
            "{refusal}"
        );
    }
}

/// A frame could be a call of the host although its function is one of the module's: its values were taken for those of the
/// first point at which that function stands.
#[test]
fn a_call_of_the_host_cannot_be_one_of_a_function_of_the_module() {
    let mut stopped = Stopped::new(
        r#"(module
          (func (export "run") (call $f (i32.const 3)))
          (func $f (param $n i32) (local $m i64)
            (local.set $m (i64.const 5))
            (loop $l (br_if $l (i32.const 0)))
            (if (local.get $n) (then (call $f (i32.sub (local.get $n) (i32.const 1)))))
            (drop (i64.add (local.get $m) (i64.extend_i32_s (local.get $n))))))"#,
    );
    // Alone, where the function has no other frame.
    let innermost = stopped
        .manifest
        .frames
        .last_mut()
        .expect("there are frames");
    let function = innermost.function;
    let host_call = Frame {
        function,
        state: FrameState::HostCall,
        offset: 0,
        locals: Vec::new(),
        operands: vec![Value::I32(1)],
    };
    *innermost = host_call.clone();
    assert!(stopped.refusal().contains("cannot belong to function"));

    // And above another frame of it.
    let mut calling = Stopped::new(
        r#"(module
          (func (export "run") (call $f (i32.const 3)))
          (func $f (param $n i32) (local $m i64)
            (local.set $m (i64.const 5))
            (if (local.get $n) (then (call $f (i32.sub (local.get $n) (i32.const 1)))))
            (loop $l (br_if $l (i32.const 0)))
            (drop (i64.add (local.get $m) (i64.extend_i32_s (local.get $n))))))"#,
    );
    let frames = &mut calling.manifest.frames;
    assert!(frames.len() > 2 && frames[1].function == frames[2].function);
    let function = frames[1].function;
    *frames.last_mut().expect("there are frames") = Frame {
        function,
        ..host_call
    };
    let refusal = calling.refusal();
    assert!(
        refusal.contains("is a call of the host, which the function is not"),
        "{refusal}"
    );
}

/// Address space was reserved for whatever the image said, up to all that there is.
#[test]
fn a_memory_that_no_program_can_have_grown_to_is_refused() {
    let mut stopped =
        Stopped::new(r#"(module (memory i64 1) (func (export "run") (loop $l (br $l))))"#);
    stopped.manifest.memories[0].pages = 1 << 20;
    let image = stopped.image();
    let resumed = stopped.program.resume(&image, Stopped::wasi());
    assert!(resumed.is_ok(), "64 GiB can be had: {:?}", resumed.err());
    for pages in [(1 << 20) + 1, 1 << 30, 1 << 32] {
        stopped.manifest.memories[0].pages = pages;
        assert_eq!(
            stopped.refusal(),
            "a memory has a size that the module does not admit"
        );
    }
}

/// Limits were set on the instance, when its tables had been made.
#[test]
fn tables_above_the_limit_are_refused_before_they_are_made() {
    let mut stopped = Stopped::new(
        r#"(module (memory 1) (table 1 funcref) (func (export "run") (drop (table.grow (ref.null func) (i32.const 1))) (loop $l (br $l))))"#,
    );
    let limits = Limits {
        table_elements: Some(100),
        memory_bytes: Some(1 << 20),
        ..Limits::default()
    };
    assert!(limits.admit(&stopped.program, &stopped.manifest).is_ok());
    let mut elements = Elements::default();
    elements.push_run(101, Value::FuncRef(None));
    stopped.manifest.tables[0].elements = elements;
    let refused = limits.admit(&stopped.program, &stopped.manifest);
    let expected = LimitReached::Table {
        limit: 100,
        wanted: 101,
    };
    assert!(matches!(refused, Err(Error::Limit(reached)) if reached == expected));
    stopped.manifest.memories[0].pages = 17;
    let refused = limits.admit(&stopped.program, &stopped.manifest);
    assert!(matches!(
        refused,
        Err(Error::Limit(LimitReached::Memory { .. }))
    ));
}

/// They were found to carry each other when 16 million of them waited.
#[test]
fn exceptions_that_carry_each_other_are_refused() {
    let mut stopped = Stopped::new(
        r#"(module (tag $e (param exnref exnref)) (global (mut exnref) (ref.null exn))
            (func (export "run") (loop $l (br $l))))"#,
    );
    let carries = |first, second| Exception {
        tag: 0,
        fields: [first, second]
            .map(|index| Value::ExnRef(Some(index)))
            .into(),
    };
    stopped.manifest.globals[0].value = Value::ExnRef(Some(0));
    for exceptions in [
        vec![carries(0, 0)],
        vec![carries(1, 1), carries(0, 0)],
        vec![carries(2, 1), carries(2, 2), carries(0, 1)],
    ] {
        stopped.manifest.exceptions = exceptions;
        let refusal = stopped.refusal();
        assert!(refusal.ends_with("carries itself"), "{refusal}");
    }
    // That two carry the same one is nothing special.
    let nothing = Exception {
        tag: 0,
        fields: vec![Value::ExnRef(None); 2],
    };
    stopped.manifest.exceptions = vec![carries(1, 2), carries(3, 3), carries(1, 3), nothing];
    let resumed = stopped.program.resume(&stopped.image(), Stopped::wasi());
    assert!(resumed.is_ok(), "{:?}", resumed.err());
}

/// For every 256 places at which frames stand the whole function is copied, so that a function of a megabyte with a stack
/// of a few more would have been gigabytes of code.
#[test]
fn a_call_stack_at_every_call_of_a_large_function_is_refused_before_code_is_made_for_it() {
    const CALLS: u32 = 50_000;
    let mut text =
        r#"(module (func $f (export "run") (loop $l (br_if $l (i32.const 0))) "#.to_owned();
    for _ in 0..CALLS {
        write!(text, "call $f ").expect("there is memory");
    }
    text.push_str("))");
    let mut stopped = Stopped::new(&text);
    let innermost = stopped
        .manifest
        .frames
        .pop()
        .expect("it is within the function");
    // The loop's body has five bytes more.
    let first = innermost.offset + 5;
    stopped.manifest.frames = (0..CALLS)
        .map(|call| Frame {
            offset: first + 2 * call,
            state: FrameState::Calling,
            ..innermost.clone()
        })
        .collect();
    stopped.manifest.frames.push(innermost);
    let refusal = stopped.refusal();
    assert!(
        refusal.contains("bytes of code would be copied"),
        "{refusal}"
    );
}
