//! Images that are prepared once and resumed many times give what an uninterrupted run gives, each time.

mod common;

use common::{Output, Seen, engine, resume, seen, start, whole};
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use wsnap::snapshots::{FrameState, Store, StoredImage, Value};
use wsnap::wasi::{Grants, SavedState, Wasi};
use wsnap::{
    Call, Engine, EngineConfig, Error, ModuleBytes, Outcome, PreparedImage, Program, WASI_SECTION,
    WorkingSet,
};

/// Recursion over two functions in turn, with references in locals and in a table that changes, a global and a dropped
/// segment. It writes to its memory before and after it is stopped.
const GUEST: &str = r#"(module
  (type $unary (func (param i64) (result i64)))
  (memory (export "memory") 2)
  (table $t 4 funcref)
  (global $calls (mut i64) (i64.const 0))
  (data $text "once")
  (elem declare func $double $add)
  (func $double (type $unary) (i64.mul (local.get 0) (i64.const 2)))
  (func $add (type $unary) (i64.add (local.get 0) (i64.const 5)))
  (func (export "main") (result i64)
    (memory.init $text (i32.const 100) (i32.const 0) (i32.const 4))
    (data.drop $text)
    (table.set $t (i32.const 1) (ref.func $double))
    (table.set $t (i32.const 3) (ref.func $add))
    (i64.add (call $even (i32.const 40)) (global.get $calls)))
  (func $even (param $n i32) (result i64) (local $f funcref)
    (local.set $f (ref.func $add))
    (global.set $calls (i64.add (global.get $calls) (i64.const 1)))
    (if (i32.eqz (local.get $n)) (then (return (call $innermost))))
    (i64.add (call $odd (i32.sub (local.get $n) (i32.const 1)))
      (i64.extend_i32_u (ref.is_null (local.get $f)))))
  (func $odd (param $n i32) (result i64)
    (i64.store (i32.shl (local.get $n) (i32.const 3)) (i64.extend_i32_u (local.get $n)))
    (call_indirect $t (type $unary)
      (call $even (i32.sub (local.get $n) (i32.const 1))) (i32.const 1)))
  (func $innermost (result i64) (local $n i32)
    (loop $again
      (i64.store offset=70000 (i32.shl (local.get $n) (i32.const 3)) (i64.extend_i32_u (local.get $n)))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $n) (i32.const 50))))
    (call_indirect $t (type $unary) (i64.const 1) (i32.const 3))))"#;

fn call() -> Call {
    Call {
        export: "main".into(),
        arguments: Vec::new(),
    }
}

/// The guest, stopped in the middle of its innermost loop, as an image in a store of its own.
fn stored(deterministic: bool) -> (tempfile::TempDir, Program, StoredImage) {
    stopped(GUEST, 20, deterministic)
}

/// A guest, stopped at its `safepoint`-th safepoint, as an image in a store of its own.
fn stopped(
    guest: &str,
    safepoint: u64,
    deterministic: bool,
) -> (tempfile::TempDir, Program, StoredImage) {
    let engine = engine(None, false, deterministic);
    let program = Program::new(&engine, guest.into()).expect("it compiles");
    let output = Output::new();
    let mut instance = start(&program, call(), &output, deterministic);
    instance
        .stop_at_safepoint(safepoint)
        .expect("its safepoints can be counted");
    let outcome = instance.run().expect("the program runs");
    assert!(matches!(outcome, Outcome::Suspended(_)), "{outcome:?}");
    let folder = tempfile::tempdir().expect("there is room for a store");
    let store = Store::open(folder.path().join("store")).expect("the store can be made");
    let snapshot = instance.snapshot().expect("it can be stored");
    let id = snapshot.store(&store).expect("it is stored");
    (folder, program, store.load(id).expect("the image is there"))
}

fn wasi(image: &StoredImage, output: &Output) -> Wasi {
    let state = SavedState::decode(&image.manifest().host[WASI_SECTION]);
    let grants = Grants {
        streams: output.streams(),
        ..Grants::default()
    };
    Wasi::restore(&state.expect("it is readable"), grants).expect("it can be restored")
}

fn finish(prepared: &PreparedImage) -> Seen {
    let output = Output::new();
    let wasi = wasi(prepared.image(), &output);
    let mut instance = prepared.resume(wasi).expect("the image can be resumed");
    let outcome = instance.run().expect("the program runs");
    seen(instance, outcome, output)
}

#[test]
fn every_resume_of_a_prepared_image_ends_as_a_run_that_was_never_stopped() {
    let (folder, program, image) = stored(false);
    let expected = whole(GUEST.as_bytes(), &call());
    let output = Output::new();
    let store = Store::open(folder.path().join("store")).expect("the store can be opened");
    let mut unprepared = resume(&program, &store, image.id(), &output);
    let outcome = unprepared.run().expect("the program runs");
    assert_eq!(seen(unprepared, outcome, output), expected);

    let prepared = program
        .prepare(Arc::new(image))
        .expect("it can be prepared");
    for _ in 0..1000 {
        assert_eq!(finish(&prepared), expected);
    }
}

#[test]
fn several_threads_resume_one_prepared_image_at_once() {
    let (_folder, program, image) = stored(false);
    let expected = whole(GUEST.as_bytes(), &call());
    let prepared = program
        .prepare(Arc::new(image))
        .expect("it can be prepared");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (prepared, expected) = (prepared.clone(), &expected);
            scope.spawn(move || {
                for _ in 0..100 {
                    assert_eq!(finish(&prepared), *expected);
                }
            });
        }
    });
}

#[test]
fn clones_that_are_alive_together_do_not_see_each_other() {
    let (_folder, program, image) = stored(false);
    let expected = whole(GUEST.as_bytes(), &call());
    let prepared = program
        .prepare(Arc::new(image))
        .expect("it can be prepared");
    let fork = || {
        let output = Output::new();
        let wasi = wasi(prepared.image(), &output);
        (prepared.resume(wasi).expect("it can be resumed"), output)
    };
    let mut clones: Vec<_> = (0..20).map(|_| fork()).collect();
    for (number, (clone, _)) in (1u64..).zip(&mut clones) {
        clone
            .stop_at_safepoint(number)
            .expect("its safepoints can be counted");
        let outcome = clone.run().expect("the program runs");
        assert!(matches!(outcome, Outcome::Suspended(_)), "{outcome:?}");
    }
    for (mut clone, output) in clones.into_iter().rev() {
        let outcome = clone.run().expect("the program runs");
        assert_eq!(seen(clone, outcome, output), expected);
    }
}

#[test]
fn a_prepared_image_that_is_stored_again_at_once_is_the_same_image() {
    let (folder, program, image) = stored(true);
    let store = Store::open(folder.path().join("other")).expect("the store can be made");
    let id = image.id();
    let prepared = program
        .prepare(Arc::new(image))
        .expect("it can be prepared");
    let wasi = wasi(prepared.image(), &Output::new());
    let mut clone = prepared.resume(wasi).expect("it can be resumed");
    let snapshot = clone.snapshot().expect("it can be stored");
    assert_eq!(snapshot.store(&store).expect("it is stored"), id);
}

/// A program of the module that the store has, by another engine with a cache in `folder`.
fn of_store(folder: &Path, store: &Store, image: &StoredImage) -> Result<Program, Error> {
    let module = ModuleBytes::of_store(store, image.manifest().module)?;
    Program::for_image(&engine_with_cache(folder), module, image.manifest(), || ())
}

fn resumed(program: &Program, image: &Arc<StoredImage>) -> Seen {
    let output = Output::new();
    let wasi = wasi(image, &output);
    let mut instance = program.resume(image, wasi).expect("it can be resumed");
    let outcome = instance.run().expect("the program runs");
    seen(instance, outcome, output)
}

/// Changes all files with this extension in a folder, and returns how many there were.
fn change(folder: &Path, extension: &str, change: impl Fn(&mut Vec<u8>)) -> usize {
    let entries = fs::read_dir(folder).expect("the folder can be listed");
    let paths = entries.map(|entry| entry.expect("the folder can be listed").path());
    let paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    for path in &paths {
        let mut bytes = fs::read(path).expect("it can be read");
        change(&mut bytes);
        fs::remove_file(path).expect("it can be removed");
        fs::write(path, bytes).expect("it can be written");
    }
    paths.len()
}

#[test]
fn a_module_of_a_store_resumes_with_and_without_what_the_cache_has() {
    let (folder, _, image) = stored(false);
    let store = Store::open(folder.path().join("store")).expect("the store can be opened");
    let image = Arc::new(image);
    let expected = whole(GUEST.as_bytes(), &call());
    let cache = tempfile::tempdir().expect("there is room for a cache");
    let again = || {
        let program = of_store(cache.path(), &store, &image).expect("it is there");
        assert_eq!(
            program.wasm(),
            wat::parse_str(GUEST).expect("it is a module")
        );
        assert_eq!(resumed(&program, &image), expected);
    };
    again();
    again();
    let notes = |change_them: &dyn Fn(&mut Vec<u8>)| change(cache.path(), "notes", change_them);
    for damage in [
        (&|bytes: &mut Vec<u8>| bytes.clear()) as &dyn Fn(&mut Vec<u8>),
        &|bytes| bytes[0] ^= 1,
        &|bytes| bytes.truncate(bytes.len() - 1),
    ] {
        assert_eq!((notes(damage), code_files(&cache)), (2, 2));
        again();
        // Those of the module were made anew with its code, those of the clones from the code that is there.
        again();
        assert_eq!(notes(&|_| ()), 2);
    }
    change(cache.path(), "code", |bytes| bytes.clear());
    again();
}

#[test]
fn nothing_that_is_made_of_a_module_that_was_damaged_after_it_was_verified_is_kept() {
    let (folder, _, image) = stored(false);
    let store = Store::open(folder.path().join("store")).expect("the store can be opened");
    let modules = folder.path().join("store/modules");
    let hash = image.manifest().module;
    ModuleBytes::of_store(&store, hash).expect("it is intact");
    // As a disk would do it: nothing about the file changes but its content.
    let path = fs::read_dir(&modules).expect("it can be listed").next();
    let path = path
        .expect("there is one")
        .expect("it can be listed")
        .path();
    let module = ModuleBytes::of_store(&store, hash).expect("it is intact");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let file = fs::File::options()
        .write(true)
        .open(&path)
        .expect("it is ours");
    let mut bytes = fs::read(&path).expect("it can be read");
    let at = bytes
        .windows(4)
        .position(|four| four == b"once")
        .expect("the text is there");
    bytes[at] ^= 1;
    file.write_all_at(&bytes, 0).expect("it can be written");

    let (cache, engine) = another_machine();
    let refused = Program::for_image(&engine, module, image.manifest(), || ()).map(drop);
    assert!(matches!(refused, Err(Error::Store(_))), "{refused:?}");
    assert_eq!(code_files(&cache), 0);
}

#[test]
fn a_module_of_a_store_that_others_can_write_to_is_read_and_verified() {
    let (folder, _, image) = stored(false);
    let root = folder.path().join("store");
    let store = Store::open(root.clone()).expect("the store can be opened");
    fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).expect("it is ours");
    let image = Arc::new(image);
    let cache = tempfile::tempdir().expect("there is room for a cache");
    let program = of_store(cache.path(), &store, &image).expect("it is there");
    assert_eq!(resumed(&program, &image), whole(GUEST.as_bytes(), &call()));
    assert_eq!(
        change(&root.join("modules"), "wasm", |bytes| bytes[9] ^= 1),
        1
    );
    let refused = of_store(cache.path(), &store, &image).map(drop);
    assert!(matches!(refused, Err(Error::Store(_))), "{refused:?}");
}

/// It writes to every eighth page of its memory, 200 times, and then adds up all of it, reading every page.
const SCATTERED: &str = r#"(module
  (memory (export "memory") 100)
  (func (export "main") (result i64) (local $at i32) (local $sum i64)
    (loop $write
      (i64.store (local.get $at) (i64.extend_i32_u (i32.add (local.get $at) (i32.const 7))))
      (br_if $write (i32.lt_u
        (local.tee $at (i32.add (local.get $at) (i32.const 32768))) (i32.const 6553600))))
    (local.set $at (i32.const 0))
    (loop $add
      (local.set $sum (i64.add (i64.rotl (local.get $sum) (i64.const 1)) (i64.load (local.get $at))))
      (i64.store offset=8 (local.get $at) (local.get $sum))
      (br_if $add (i32.lt_u
        (local.tee $at (i32.add (local.get $at) (i32.const 4096))) (i32.const 6553600))))
    (local.get $sum)))"#;

fn mappings() -> usize {
    let maps = fs::read_to_string("/proc/self/maps");
    maps.expect("the system tells").lines().count()
}

#[test]
fn a_prepared_memory_in_many_pieces_is_mapped_in_few_and_is_the_same() {
    let (folder, program, image) = stopped(SCATTERED, 300, false);
    let expected = whole(SCATTERED.as_bytes(), &call());
    let store = Store::open(folder.path().join("store")).expect("the store can be opened");
    let image = Arc::new(image);
    assert!(image.memories()[0].extents().len() > 64);

    let prepared = program.prepare(image.clone()).expect("it can be prepared");
    let before = mappings();
    let resume = || {
        let output = Output::new();
        let wasi = wasi(&image, &output);
        (prepared.resume(wasi).expect("it can be resumed"), output)
    };
    let clones: Vec<_> = (0..20).map(|_| resume()).collect();
    assert!(mappings() < before + 20 * 20, "{before} and {}", mappings());
    for (mut clone, output) in clones {
        // An image of the clone, taken half way, has what it has written and what it has not.
        clone
            .stop_at_safepoint(500)
            .expect("its safepoints can be counted");
        let outcome = clone.run().expect("the program runs");
        assert!(matches!(outcome, Outcome::Suspended(_)), "{outcome:?}");
        let snapshot = clone.snapshot().expect("it can be stored");
        let id = snapshot.store(&store).expect("it is stored");
        let again = Output::new();
        let mut resumed = common::resume(&program, &store, id, &again);
        let outcome = resumed.run().expect("the program runs");
        assert_eq!(seen(resumed, outcome, again), expected);
        let outcome = clone.run().expect("the program runs");
        assert_eq!(seen(clone, outcome, output), expected);
    }
}

/// An engine that shares nothing with the one that made the image but the settings, and the folder of its code.
fn another_machine() -> (tempfile::TempDir, Engine) {
    let folder = tempfile::tempdir().expect("there is room for a cache");
    let engine = engine_with_cache(folder.path());
    (folder, engine)
}

fn engine_with_cache(folder: &Path) -> Engine {
    let config = EngineConfig {
        cache: Some(folder.to_owned()),
        ..EngineConfig::default()
    };
    Engine::new(&config).expect("the engine can be set up")
}

fn code_files(folder: &tempfile::TempDir) -> usize {
    let entries = fs::read_dir(folder.path()).expect("the cache can be listed");
    let names = entries.map(|entry| entry.expect("the cache can be listed").file_name());
    names
        .filter(|name| name.to_string_lossy().ends_with(".code"))
        .count()
}

#[test]
fn a_program_made_for_an_image_has_all_code_that_resuming_needs() {
    let (_folder, _, image) = stored(false);
    let (cache, engine) = another_machine();
    let mut notices = 0;
    let program = Program::for_image(&engine, Vec::from(GUEST).into(), image.manifest(), || {
        notices += 1
    });
    let program = program.expect("it compiles");
    assert_eq!((notices, code_files(&cache)), (1, 2));

    let expected = whole(GUEST.as_bytes(), &call());
    let prepared = program
        .prepare(Arc::new(image))
        .expect("it can be prepared");
    assert_eq!(finish(&prepared), expected);
    assert_eq!(code_files(&cache), 2, "nothing was compiled for the resume");
}

#[test]
fn a_program_made_for_an_image_of_another_module_runs_and_refuses_the_image() {
    let (_folder, _, image) = stored(false);
    let (cache, engine) = another_machine();
    let other = GUEST.replace("i64.const 5", "i64.const 6");
    let program = Program::for_image(
        &engine,
        Vec::from(other.clone()).into(),
        image.manifest(),
        || (),
    );
    let program = program.expect("it compiles");
    assert_eq!(code_files(&cache), 1);

    let output = Output::new();
    let mut instance = start(&program, call(), &output, false);
    let outcome = instance.run().expect("the program runs");
    let expected = whole(other.as_bytes(), &call());
    assert_eq!(seen(instance, outcome, output), expected);
    let refused = program.prepare(Arc::new(image)).map(drop);
    assert!(matches!(refused, Err(Error::Image(_))), "{refused:?}");
}

#[test]
fn a_program_made_for_an_image_with_wrong_frames_is_none_the_worse() {
    let (_folder, _, image) = stored(false);
    let (cache, engine) = another_machine();
    let mut manifest = image.manifest().clone();
    let innermost = manifest.frames.last_mut().expect("there are frames");
    innermost.locals.clear();
    let program = Program::for_image(&engine, Vec::from(GUEST).into(), &manifest, || ());
    assert_eq!(code_files(&cache), 1);
    let expected = whole(GUEST.as_bytes(), &call());
    let program = program.expect("it compiles");
    let prepared = program
        .prepare(Arc::new(image))
        .expect("the image itself is right");
    assert_eq!(finish(&prepared), expected);
}

#[test]
fn an_image_whose_values_do_not_fit_is_refused_when_it_is_prepared() {
    let (folder, program, image) = stored(false);
    let store = Store::open(folder.path().join("store")).expect("the store can be opened");
    let bytes: Vec<Vec<u8>> = image
        .memories()
        .iter()
        .map(|memory| {
            let mut bytes = vec![0; memory.byte_len() as usize];
            memory.read_at(0, &mut bytes).expect("it can be read");
            bytes
        })
        .collect();
    let memories: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    let refuse = |change: &dyn Fn(&mut wsnap::snapshots::Manifest), why: &str| {
        let mut manifest = image.manifest().clone();
        change(&mut manifest);
        let id = store
            .publish(manifest, &memories)
            .expect("the format has nothing against it");
        let image = Arc::new(store.load(id).expect("it is there"));
        match program.prepare(image) {
            Err(Error::Image(what)) => assert!(what.contains(why), "{what}"),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it is prepared, although: {why}"),
        }
    };
    refuse(
        &|manifest| manifest.globals[0].value = Value::I32(0),
        "where a value of class",
    );
    refuse(
        &|manifest| manifest.frames[1].locals[0].1 = Value::F32(0),
        "the values that are live there",
    );
    refuse(
        &|manifest| drop(manifest.frames.pop()),
        "waits for a call that is not there",
    );
    refuse(
        &|manifest| {
            let innermost = manifest.frames.last_mut().expect("it has frames");
            (innermost.state, innermost.offset) = (FrameState::HostCall, 0);
        },
        "cannot belong to function",
    );
    refuse(
        &|manifest| {
            for frame in &mut manifest.frames {
                for (_, value) in &mut frame.locals {
                    if matches!(value, Value::FuncRef(_)) {
                        *value = Value::FuncRef(Some(5));
                    }
                }
            }
        },
        "which nothing can refer to",
    );
}

/// The page is the system's, which is 4 KiB wherever working sets can be told.
const PAGE: u64 = 4096;

#[test]
fn the_working_set_of_a_watched_run_is_what_the_program_touched() {
    let (_folder, program, image) = stored(false);
    let expected = whole(GUEST.as_bytes(), &call());
    let prepared = program
        .prepare(Arc::new(image))
        .expect("it can be prepared");
    let output = Output::new();
    let wasi = wasi(prepared.image(), &output);
    let mut instance = prepared.resume_watched(wasi).expect("it can be resumed");
    let outcome = instance.run().expect("the program runs");
    // Kernels before 6.7 do not tell.
    if let Some(set) = instance.working_set() {
        // All that it does after it has been stopped is to go on writing there.
        let written = 70_000 / PAGE * PAGE;
        let touched = set.stretches(0).iter();
        let touched: Vec<_> = touched.map(|range| (range.start, range.end)).collect();
        assert_eq!(touched, [(written, written + PAGE)]);
        assert_eq!(set.stretches(1), []);
        assert_eq!(set.byte_len(), PAGE);
        prepared.prefetch(&set).expect("it can be read ahead");
        prepared
            .prefetch(&WorkingSet::default())
            .expect("nothing can be read ahead");
    }
    assert_eq!(seen(instance, outcome, output), expected);
    assert_eq!(finish(&prepared), expected);
}
