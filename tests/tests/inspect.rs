//! What `ls` and `inspect` tell about stored programs.

use std::fs;

use serde_json::Value;
use wsnap_tests::examples_dir;
use wsnap_tests::wsnap::{Finished, SUSPENDED, Sandbox};

fn stop(sandbox: &Sandbox, module: &str, safepoint: u64, arguments: &[&str]) -> String {
    let at = format!("safepoint={safepoint}");
    let command = sandbox
        .wsnap()
        .args(["run", "--stop-at", &at, "--id-file", "id"])
        .args(arguments);
    let _ = command
        .arg(examples_dir().join(module))
        .run()
        .expect(SUSPENDED);
    fs::read_to_string(sandbox.path("id"))
        .expect("the id file was written")
        .trim()
        .to_string()
}

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.text())
        .unwrap_or_else(|error| panic!("{error}\n{}", finished.describe()))
}

#[test]
fn the_call_stack_of_an_image_has_the_names_of_its_functions() {
    let sandbox = Sandbox::new();
    let id = stop(&sandbox, "wat/recursion.wat", 5000, &[]);
    let shown = sandbox
        .wsnap()
        .args(["inspect", "--json", &id])
        .run()
        .expect(0);
    let frames = json(&shown).to_string();
    assert!(frames.contains("\"fib\""), "{}", shown.describe());
    let text = sandbox.wsnap().args(["inspect", &id]).run().expect(0);
    assert!(text.text().contains("fib"), "{}", text.describe());
    assert!(text.text().contains(&id), "{}", text.describe());
}

#[test]
fn locals_and_operands_of_a_frame_are_shown_with_their_values() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "frame.wat",
        r#"(module
             (memory (export "memory") 1)
             (func $spin (param $turns i32)
               (loop $again (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1))))))
             (func $holds (param $kept i32) (result i32)
               (i32.const 424242)
               (call $spin (i32.const 100000))
               (i32.add (local.get $kept)))
             (func (export "_start") (drop (call $holds (i32.const 717171)))))"#,
    );
    let command = sandbox.wsnap().args([
        "run",
        "--stop-at",
        "safepoint=500",
        "--id-file",
        "id",
        "frame.wat",
    ]);
    let _ = command.run().expect(SUSPENDED);
    let id = fs::read_to_string(sandbox.path("id")).expect("the id file was written");
    let shown = sandbox
        .wsnap()
        .args(["inspect", "--json", id.trim()])
        .run()
        .expect(0);
    let text = json(&shown).to_string();
    for part in ["spin", "holds", "424242", "717171"] {
        assert!(
            text.contains(part),
            "{part} is missing\n{}",
            shown.describe()
        );
    }
}

#[test]
fn ls_lists_each_image_with_its_name() {
    let sandbox = Sandbox::new();
    let empty = sandbox.wsnap().args(["ls", "--json"]).run().expect(0);
    assert!(!json(&empty).to_string().contains("recursive"));
    let first = stop(
        &sandbox,
        "wat/recursion.wat",
        5000,
        &["--name", "recursive"],
    );
    let second = stop(&sandbox, "wat/memory.wat", 5000, &[]);
    let listed = sandbox.wsnap().args(["ls", "--json"]).run().expect(0);
    let text = json(&listed).to_string();
    for part in [first.as_str(), second.as_str(), "recursive"] {
        assert!(
            text.contains(part),
            "{part} is missing\n{}",
            listed.describe()
        );
    }
    let _ = sandbox.wsnap().arg("ls").run().expect(0);
}

#[test]
fn a_module_is_compiled_ahead_and_then_runs() {
    let sandbox = Sandbox::new();
    let module = examples_dir().join("wat/recursion.wat");
    let cache = sandbox.path("cache");
    let _ = sandbox
        .wsnap()
        .env("WSNAP_CACHE", &cache)
        .arg("compile")
        .arg(&module)
        .run()
        .expect(0);
    assert!(
        fs::read_dir(&cache)
            .expect("the cache's folder")
            .next()
            .is_some(),
        "the cache is filled"
    );
    let finished = sandbox
        .wsnap()
        .env("WSNAP_CACHE", &cache)
        .arg("run")
        .arg(&module)
        .run()
        .expect(0);
    assert_eq!(
        finished.text(),
        wsnap_tests::guests::run("recursion").stdout
    );
}

#[test]
fn every_command_has_help_with_an_example() {
    let sandbox = Sandbox::new();
    for command in ["run", "resume", "snap", "ps", "ls", "inspect", "compile"] {
        let help = sandbox
            .wsnap()
            .args([command, "--help"])
            .run()
            .expect(0)
            .text();
        let example = format!("wsnap {command} ");
        let lines = help
            .lines()
            .filter(|line| line.contains(&example) || line.trim() == example.trim());
        assert!(
            lines.filter(|line| !line.contains("Usage:")).count() > 0,
            "no example:\n{help}"
        );
    }
}
