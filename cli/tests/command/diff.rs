//! What changed between two images: `diff`.

use serde_json::Value as Json;
use wsnap::snapshots::{
    Elements, Frame, FrameState, GlobalState, ImageId, Manifest, TableState, Value,
};

use crate::sandbox::Sandbox;
use crate::stored::{PAGE, Stored};

const MEMORY_LEN: usize = 4 << 16;

fn diff(sandbox: &Sandbox, old: ImageId, new: ImageId) -> Json {
    let (stdout, _) = sandbox.expect(0, &["diff", "--json", &old.to_string(), &new.to_string()]);
    serde_json::from_str(&stdout).expect("a report in JSON")
}

fn text(sandbox: &Sandbox, old: ImageId, new: ImageId) -> String {
    sandbox
        .expect(0, &["diff", &old.to_string(), &new.to_string()])
        .0
}

fn frame(function: u32, offset: u32, local: i32) -> Frame {
    Frame {
        function,
        offset,
        state: FrameState::Calling,
        locals: vec![(0, Value::I32(local))],
        operands: Vec::new(),
    }
}

fn publish(stored: &Stored, manifest: &Manifest, memory: &[u8]) -> ImageId {
    stored
        .store
        .publish(manifest.clone(), &[memory])
        .expect("stored")
}

#[test]
fn pages_that_differ_are_counted_and_coalesced() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let manifest = stored.manifest(0);
    let mut memory = vec![7; MEMORY_LEN];
    let old = publish(&stored, &manifest, &memory);
    // Two neighbours on both sides of a leaf's border, and one page that becomes zero.
    memory[16 * PAGE - 1] = 1;
    memory[16 * PAGE] = 1;
    memory[40 * PAGE..41 * PAGE].fill(0);
    let new = publish(&stored, &manifest, &memory);
    let report = diff(&sandbox, old, new);
    let memory = &report["memories"][0];
    assert_eq!(memory["changed_pages"], 3);
    assert_eq!(memory["changed_bytes"], 2 + PAGE);
    let expected = serde_json::json!([
        {"offset": 15 * PAGE, "length": 2 * PAGE},
        {"offset": 40 * PAGE, "length": PAGE},
    ]);
    assert_eq!(memory["ranges"], expected);
    assert_eq!(report["identical"], false);
    assert_eq!(report["globals"], Json::Array(Vec::new()));
    let shown = text(&sandbox, old, new);
    assert!(
        shown.contains("4098 bytes differ in 3 pages of 4 KiB"),
        "{shown}"
    );
    assert!(shown.contains("0x0000f000..0x00011000"), "{shown}");
}

#[test]
fn what_a_memory_grew_by_is_compared_with_zeros() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let mut manifest = stored.manifest(0);
    let old = publish(&stored, &manifest, &vec![7; MEMORY_LEN]);
    manifest.memories[0].pages = 6;
    let mut memory = vec![0; 6 << 16];
    memory[..MEMORY_LEN].fill(7);
    memory[5 << 16] = 1;
    let new = publish(&stored, &manifest, &memory);
    let change = &diff(&sandbox, old, new)["memories"][0];
    assert_eq!(
        change["bytes"],
        serde_json::json!({"old": 4 << 16, "new": 6 << 16})
    );
    assert_eq!(change["changed_bytes"], 1);
    let shrunk = &diff(&sandbox, new, old)["memories"][0];
    assert_eq!(shrunk["ranges"], change["ranges"]);
    assert!(text(&sandbox, old, new).contains("256.00 KiB -> 384.00 KiB"));
}

#[test]
fn globals_and_tables_that_changed_are_shown_with_both_values() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let memory = vec![0; MEMORY_LEN];
    let mut manifest = stored.manifest(5);
    manifest.globals.push(GlobalState {
        index: 1,
        value: Value::I64(1),
    });
    let mut elements = Elements::default();
    elements.push_run(1_000_000, Value::FuncRef(None));
    manifest.tables.push(TableState { index: 0, elements });
    let old = publish(&stored, &manifest, &memory);
    manifest.globals[0].value = Value::I32(-5);
    let mut elements = Elements::default();
    elements.push_run(999_000, Value::FuncRef(None));
    elements.push_run(2_000, Value::FuncRef(Some(1)));
    manifest.tables[0].elements = elements;
    let new = publish(&stored, &manifest, &memory);
    let report = diff(&sandbox, old, new);
    let expected = serde_json::json!([{
        "index": 0, "name": "n", "old": {"type": "i32", "value": 5}, "new": {"type": "i32", "value": -5},
    }]);
    assert_eq!(report["globals"], expected);
    let table = &report["tables"][0];
    assert_eq!(
        table["length"],
        serde_json::json!({"old": 1_000_000, "new": 1_001_000})
    );
    assert_eq!(table["changed_elements"], 2_000);
    assert_eq!(table["ranges"][0]["offset"], 999_000);
    assert_eq!(table["ranges"][0]["old"]["value"], "null");
    assert_eq!(
        table["ranges"][1]["old"],
        Json::Null,
        "there was no element"
    );
    let shown = text(&sandbox, old, new);
    assert!(shown.contains("global 0 (n): i32 5 -> i32 -5"), "{shown}");
    assert!(
        shown.contains("1000 × from 999000: funcref null -> funcref function 1"),
        "{shown}"
    );
}

#[test]
fn call_stacks_are_shown_from_where_they_part() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let memory = vec![0; MEMORY_LEN];
    let mut manifest = stored.manifest(0);
    manifest.frames = vec![frame(0, 40, 1), frame(1, 50, 2), frame(1, 60, 3)];
    let old = publish(&stored, &manifest, &memory);
    manifest.frames[1] = frame(1, 50, 9);
    manifest.frames.truncate(2);
    let new = publish(&stored, &manifest, &memory);
    let stack = &diff(&sandbox, old, new)["call_stack"];
    assert_eq!(stack["common"], 1);
    assert_eq!(stack["last_common"]["function_name"], "main");
    assert_eq!(stack["frames"]["old"].as_array().map(Vec::len), Some(2));
    assert_eq!(stack["frames"]["new"][0]["locals"][0]["value"], 9);
    let shown = text(&sandbox, old, new);
    for part in [
        "3 frames before, 2 now",
        "1 frame is unchanged, the last of them main",
        "\n  - work at byte 0x3c",
        "\n  + work at byte 0x32",
    ] {
        assert!(shown.contains(part), "{part:?} is missing in {shown}");
    }
}

#[test]
fn what_is_too_long_for_people_is_cut_short_and_counted() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let manifest = stored.manifest(0);
    let mut memory = vec![0; MEMORY_LEN];
    let old = publish(&stored, &manifest, &memory);
    (0..32).for_each(|page| memory[2 * page * PAGE] = 1);
    let new = publish(&stored, &manifest, &memory);
    let shown = text(&sandbox, old, new);
    assert!(shown.contains("… and 16 more: --json shows all"), "{shown}");
    let ranges = &diff(&sandbox, old, new)["memories"][0]["ranges"];
    assert_eq!(ranges.as_array().map(Vec::len), Some(32));
}

#[test]
fn descriptors_and_clocks_of_a_program_that_went_on_are_compared() {
    let sandbox = Sandbox::new();
    sandbox.write("data", "0123456789");
    // Opens the file `data` in the first granted directory and spins for ever.
    sandbox.write(
        "opens.wat",
        r#"(module
          (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 0) "data")
          (func $spin (param $turns i32)
            (loop $again (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1))))))
          (func (export "_start")
            (call $spin (i32.const 1000))
            (drop (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 0)
              (i64.const 0x2) (i64.const 0) (i32.const 0) (i32.const 32)))
            (loop $again (br $again))))"#,
    );
    let base = ["run", "--deterministic", "--dir", ".::/w"];
    for (name, at) in [("before", "safepoint=10"), ("after", "safepoint=2000")] {
        let mut run = base.to_vec();
        run.extend(["--name", name, "--stop-at", at, "opens.wat"]);
        sandbox.expect(85, &run);
    }
    let (stdout, _) = sandbox.expect(0, &["diff", "--json", "before", "after"]);
    let report: Json = serde_json::from_str(&stdout).expect("a report in JSON");
    let descriptors = report["wasi"]["descriptors"].as_array().expect("a list");
    assert_eq!(descriptors.len(), 1, "{report}");
    assert_eq!(descriptors[0]["old"], Json::Null);
    assert_eq!(descriptors[0]["new"]["path"], "/w/data");
    let (shown, _) = sandbox.expect(0, &["diff", "before", "after"]);
    assert!(
        shown.contains("\n+ fd 4") && shown.contains("/w/data"),
        "{shown}"
    );
    assert!(shown.contains("\n  - "), "the call stacks differ: {shown}");
}

#[test]
fn an_image_does_not_differ_from_itself() {
    let sandbox = Sandbox::new();
    let id = Stored::new(&sandbox).image(1, 1);
    assert_eq!(diff(&sandbox, id, id)["identical"], true);
    assert!(text(&sandbox, id, id).contains("nothing differs"));
}

#[test]
fn images_of_different_modules_and_images_that_are_not_there_are_refused() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let one = stored.image(1, 1).to_string();
    let mut manifest = stored.manifest(0);
    manifest.module = stored.store.put_module(b"\0asm\x01\0\0\0").expect("stored");
    let other = publish(&stored, &manifest, &vec![0; MEMORY_LEN]).to_string();
    let (_, stderr) = sandbox.expect(1, &["diff", &one, &other]);
    assert!(
        stderr.contains("different modules") && stderr.contains("hint:"),
        "{stderr}"
    );
    sandbox.expect(1, &["diff", &one, "nobody"]);
    sandbox.expect(2, &["diff", &one]);
}
