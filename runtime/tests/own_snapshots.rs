//! Snapshots that programs take of themselves, and what they know of being resumed.

#[allow(dead_code, reason = "shared with tests that use all of it")]
mod common;

use common::{Output, plain_engine, resume, start};
use std::sync::{Arc, Mutex};
use wsnap::snapshots::{ImageId, Store, Value};
use wsnap::{Call, Error, Instance, OWN_SECTION, Outcome, Program, SavedOwn};

/// Takes `$count` snapshots while a reference is on the stack, so that there can be no twin, or without one, and returns how
/// often it was told 0, 1 and anything else.
const COUNTING: &str = r#"(module
    (import "wsnap" "snapshot" (func $snapshot (result i32)))
    (memory (export "memory") 1)
    (func $here)
    (elem declare func $here)
    (func $tell (param $told i32)
        (local.set $told (select (local.get $told) (i32.const 2) (i32.lt_u (local.get $told) (i32.const 2))))
        (local.set $told (i32.shl (local.get $told) (i32.const 2)))
        (i32.store (local.get $told) (i32.add (i32.load (local.get $told)) (i32.const 1))))
    (func $with_reference (local $f funcref)
        (local.set $f (ref.func $here))
        (call $tell (call $snapshot))
        (drop (ref.is_null (local.get $f))))
    (func $results (result i32 i32 i32)
        (i32.load (i32.const 0)) (i32.load (i32.const 4)) (i32.load (i32.const 8)))
    (func (export "plain") (param $count i32) (result i32 i32 i32)
        (loop $again
            (call $tell (call $snapshot))
            (local.set $count (i32.sub (local.get $count) (i32.const 1)))
            (br_if $again (local.get $count)))
        (call $results))
    (func (export "references") (param $count i32) (result i32 i32 i32)
        (loop $again
            (call $with_reference)
            (local.set $count (i32.sub (local.get $count) (i32.const 1)))
            (br_if $again (local.get $count)))
        (call $results)))"#;

const COUNT: i32 = 20;

struct Counting {
    program: Program,
    store: Store,
    _folder: tempfile::TempDir,
}

impl Counting {
    fn new() -> Self {
        let wasm = wat::parse_str(COUNTING).expect("the text is right");
        let folder = tempfile::tempdir().expect("there is room for a store");
        Self {
            program: Program::new(&plain_engine(None), wasm).expect("the module compiles"),
            store: Store::open(folder.path().join("store")).expect("a store can be made"),
            _folder: folder,
        }
    }

    fn start(&self, export: &str) -> Instance {
        let call = Call {
            export: export.into(),
            arguments: vec![Value::I32(COUNT)],
        };
        start(&self.program, call, &Output::new(), false)
    }

    /// Stores the program's own snapshots from now on.
    fn keep(&self, instance: &mut Instance) -> Arc<Mutex<Vec<ImageId>>> {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (images, store) = (kept.clone(), self.store.clone());
        instance.keep_own_snapshots(move |snapshot| {
            let id = snapshot.expect("it can be taken").store(&store);
            images
                .lock()
                .expect("whole")
                .push(id.expect("it can be stored"));
            true
        });
        kept
    }

    /// Resumes an image; further snapshots are taken and dropped.
    fn resumed(&self, id: ImageId) -> Instance {
        let mut instance = resume(&self.program, &self.store, id, &Output::new());
        instance.keep_own_snapshots(|snapshot| snapshot.is_ok());
        instance
    }
}

/// How often it was told 0, 1 and anything else.
fn told(instance: &mut Instance) -> [i32; 3] {
    match instance.run().expect("it runs") {
        Outcome::Returned(values) => match values[..] {
            [Value::I32(a), Value::I32(b), Value::I32(c)] => [a, b, c],
            _ => panic!("{values:?}"),
        },
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn each_image_that_a_program_took_itself_is_told_once_that_it_was_resumed() {
    for export in ["plain", "references"] {
        let counting = Counting::new();
        let mut instance = counting.start(export);
        let kept = counting.keep(&mut instance);
        assert_eq!(told(&mut instance), [COUNT, 0, 0], "{export}");
        let kept = kept.lock().expect("whole");
        assert_eq!(kept.len(), COUNT as usize, "{export}");
        for id in kept.iter() {
            let mut resumed = counting.resumed(*id);
            assert_eq!(told(&mut resumed), [COUNT - 1, 1, 0], "{export}");
        }
    }
}

#[test]
fn a_snapshot_by_somebody_else_is_not_taken_for_the_programs_own() {
    for export in ["plain", "references"] {
        let counting = Counting::new();
        let mut instance = counting.start(export);
        let own = counting.keep(&mut instance);
        let handle = instance.handle();
        let others = std::thread::scope(|scope| {
            let others = scope.spawn(|| {
                let mut images = Vec::new();
                loop {
                    match handle.snapshot() {
                        Ok(snapshot) => images.push(snapshot.store(&counting.store).expect("room")),
                        Err(Error::Ended) => return images,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
            assert_eq!(told(&mut instance), [COUNT, 0, 0], "{export}");
            others.join().expect("snapshots are taken")
        });
        for id in &*own.lock().expect("whole") {
            assert_eq!(told(&mut counting.resumed(*id)), [COUNT - 1, 1, 0]);
        }
        for id in others {
            assert_eq!(told(&mut counting.resumed(id)), [COUNT, 0, 0], "{export}");
        }
    }
}

#[test]
fn an_image_taken_before_a_resumed_program_ran_says_the_same_again() {
    let counting = Counting::new();
    let mut instance = counting.start("plain");
    let kept = counting.keep(&mut instance);
    told(&mut instance);
    let first = kept.lock().expect("whole")[0];
    let own = |id| {
        let image = counting.store.load(id).expect("the image is there");
        SavedOwn::decode(&image.manifest().host[OWN_SECTION]).expect("readable")
    };
    assert_eq!(
        own(first),
        SavedOwn {
            is_in_snapshot: true,
            resumes: 0
        }
    );
    let mut resumed = counting.resumed(first);
    let again = resumed.snapshot().expect("it stands still");
    let again = again.store(&counting.store).expect("room");
    assert_eq!(
        own(again),
        SavedOwn {
            is_in_snapshot: true,
            resumes: 1
        }
    );
    assert_eq!(told(&mut counting.resumed(again)), [COUNT - 1, 1, 0]);
}

#[test]
fn without_anybody_to_keep_it_or_when_it_is_not_kept_there_is_no_snapshot() {
    let counting = Counting::new();
    assert_eq!(told(&mut counting.start("plain")), [0, 0, COUNT]);
    for export in ["plain", "references"] {
        let mut instance = counting.start(export);
        instance.keep_own_snapshots(|_| false);
        assert_eq!(told(&mut instance), [0, 0, COUNT], "{export}");
    }
}
