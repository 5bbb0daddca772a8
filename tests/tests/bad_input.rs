//! Whatever is wrong with the command line, the module or the world: one message that names it, and the exit code of
//! the contract.

use std::fs;

use wsnap_tests::examples_dir;
use wsnap_tests::guests::run;
use wsnap_tests::wsnap::{SUSPENDED, Sandbox};

const OTHER: i32 = 1;
const USAGE: i32 = 2;

fn module(name: &str) -> String {
    examples_dir().join(name).display().to_string()
}

/// Stops a program and returns its image.
fn stop(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let id = sandbox.path("id");
    let command = sandbox
        .wsnap()
        .args(["run", "--stop-at", "safepoint=1000", "--id-file"])
        .arg(&id);
    let _ = command.args(arguments).run().expect(SUSPENDED);
    fs::read_to_string(&id)
        .expect("the id file was written")
        .trim()
        .to_string()
}

#[test]
fn a_missing_module_is_named() {
    let sandbox = Sandbox::new();
    for options in [&["run"][..], &["run", "--bare"], &["compile"]] {
        sandbox
            .wsnap()
            .args(options)
            .arg("nowhere.wasm")
            .run()
            .expect_one_error(OTHER, &["nowhere.wasm"]);
    }
}

#[test]
fn a_directory_in_place_of_a_module_is_named() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("folder.wasm")).expect("a folder");
    sandbox
        .wsnap()
        .args(["run", "folder.wasm"])
        .run()
        .expect_one_error(OTHER, &["folder.wasm"]);
}

#[test]
fn a_truncated_module_is_an_error_wherever_it_ends() {
    let sandbox = Sandbox::new();
    let whole = fs::read(examples_dir().join("prebuilt/pi.wasm")).expect("a module");
    for length in [0, 1, 4, 7, 8, 9, 100, whole.len() / 2, whole.len() - 1] {
        sandbox.write("short.wasm", &whole[..length]);
        sandbox
            .wsnap()
            .args(["run", "short.wasm"])
            .run()
            .expect_one_error(OTHER, &["short.wasm"]);
    }
}

#[test]
fn bytes_that_are_no_module_are_an_error() {
    let sandbox = Sandbox::new();
    sandbox.write("elf.wasm", b"\x7fELF\x02\x01\x01 not a module at all");
    sandbox.write(
        "noise.wasm",
        [b"\0asm\x01\0\0\0".as_slice(), &[0xa5; 200]].concat(),
    );
    for file in ["elf.wasm", "noise.wasm"] {
        sandbox
            .wsnap()
            .args(["run", file])
            .run()
            .expect_one_error(OTHER, &[file]);
    }
}

#[test]
fn a_component_is_refused_as_such() {
    let sandbox = Sandbox::new();
    sandbox.write("part.wasm", b"\0asm\x0d\0\x01\0");
    sandbox
        .wsnap()
        .args(["run", "part.wasm"])
        .run()
        .expect_one_error(OTHER, &["part.wasm", "component"]);
}

#[test]
fn malformed_text_is_named_with_its_line() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "bad.wat",
        "(module\n  (func $f (export \"_start\")\n    (i32.nonsense)))\n",
    );
    sandbox
        .wsnap()
        .args(["run", "bad.wat"])
        .run()
        .expect_one_error(OTHER, &["bad.wat:3"]);
    sandbox.write("binary.wat", b"(module \xff\xfe)");
    sandbox
        .wsnap()
        .args(["run", "binary.wat"])
        .run()
        .expect_one_error(OTHER, &["binary.wat"]);
}

#[test]
fn a_module_that_does_not_validate_is_an_error() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "wrong.wat",
        "(module (func (export \"_start\") (drop (i32.add (i32.const 1) (i64.const 2)))))",
    );
    sandbox
        .wsnap()
        .args(["run", "wrong.wat"])
        .run()
        .expect_one_error(OTHER, &["wrong.wat"]);
}

#[test]
fn an_import_that_nobody_provides_is_named() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "lonely.wat",
        "(module (import \"moon\" \"cheese\" (func)) (func (export \"_start\")))",
    );
    sandbox
        .wsnap()
        .args(["run", "lonely.wat"])
        .run()
        .expect_one_error(OTHER, &["moon", "cheese"]);
}

#[test]
fn a_module_without_entry_point_is_an_error_that_says_what_to_do() {
    let sandbox = Sandbox::new();
    sandbox.write("library.wat", "(module (func (export \"work\")))");
    sandbox
        .wsnap()
        .args(["run", "library.wat"])
        .run()
        .expect_one_error(OTHER, &["_start", "--invoke"]);
    let unknown = sandbox
        .wsnap()
        .args(["run", "--invoke", "play", "library.wat"])
        .run();
    unknown.expect_one_error(OTHER, &["play"]);
}

#[test]
fn arguments_that_do_not_fit_the_invoked_function_are_an_error() {
    let sandbox = Sandbox::new();
    let invoke = module("wat/invoke.wat");
    let run = |arguments: &[&str]| {
        sandbox
            .wsnap()
            .args(["run", "--invoke", "fibonacci", &invoke])
            .args(arguments)
            .run()
    };
    run(&["many"]).expect_one_error(OTHER, &["many"]);
    run(&["99999999999999"]).expect_one_error(OTHER, &["99999999999999"]);
    run(&[]).expect_one_error(OTHER, &["fibonacci"]);
    run(&["1", "2"]).expect_one_error(OTHER, &["fibonacci"]);
}

#[test]
fn wrong_usage_exits_with_2() {
    let sandbox = Sandbox::new();
    let pi = module("prebuilt/pi.wasm");
    let lines: [&[&str]; 9] = [
        &["fly"],
        &["run"],
        &["run", "--wings", &pi],
        &["run", "--stop-at", "tomorrow", &pi],
        &["run", "--stop-at", "safepoint=some", &pi],
        &["run", "--stop-at", "after=soon", &pi],
        &["run", "--dir"],
        &["resume"],
        &["inspect"],
    ];
    for line in lines {
        sandbox
            .wsnap()
            .args(line)
            .run()
            .expect_one_error(USAGE, &[]);
    }
}

#[test]
fn an_unknown_target_is_named() {
    let sandbox = Sandbox::new();
    let finished = sandbox
        .wsnap()
        .args(["run", "--target", "abacus", &module("wat/recursion.wat")])
        .run();
    let code = finished.code().unwrap_or_default();
    assert!([OTHER, USAGE].contains(&code), "{}", finished.describe());
    finished.expect_one_error(code, &["abacus"]);
}

#[test]
fn a_reference_that_nothing_matches_is_named() {
    let sandbox = Sandbox::new();
    stop(&sandbox, &[&module("wat/recursion.wat")]);
    let zeros = "0".repeat(64);
    for reference in [
        "nosuchname",
        "0000000",
        zeros.as_str(),
        "",
        "../../etc/passwd",
        "a/b",
    ] {
        for command in ["resume", "inspect"] {
            sandbox
                .wsnap()
                .args([command, reference])
                .run()
                .expect_one_error(OTHER, &[reference]);
        }
    }
}

#[test]
fn a_prefix_of_several_images_is_refused_and_lists_them() {
    let sandbox = Sandbox::new();
    let first = stop(&sandbox, &[&module("wat/recursion.wat")]);
    let images = sandbox.store().join("images");
    // Another entry that starts alike: looking a prefix up doesn't read the images.
    let twin = format!("{}{}", &first[..8], "0".repeat(first.len() - 8));
    fs::copy(images.join(&first), images.join(&twin)).expect("a second image");
    for command in ["resume", "inspect"] {
        let finished = sandbox.wsnap().args([command, &first[..8]]).run();
        finished.expect_one_error(OTHER, &[&first[..8], &first[..12], &twin[..12]]);
    }
    let _ = sandbox.wsnap().args(["resume", &first]).run().expect(0);
}

#[test]
fn a_directory_that_is_not_granted_on_resume_is_named_with_the_flag_that_grants_it() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("data")).expect("a folder");
    let dir = format!("{}::/out", sandbox.path("data").display());
    let files = module("prebuilt/files.wasm");
    let id = stop(&sandbox, &["--dir", &dir, &files, "/out"]);
    sandbox
        .wsnap()
        .args(["resume", &id])
        .run()
        .expect_one_error(OTHER, &["/out", "--dir"]);
    let elsewhere = format!("{}::/elsewhere", sandbox.path("data").display());
    let finished = sandbox
        .wsnap()
        .args(["resume", "--dir", &elsewhere, &id])
        .run();
    finished.expect_one_error(OTHER, &["/out", "--dir"]);
    let finished = sandbox
        .wsnap()
        .args(["resume", "--dir", &dir, &id])
        .run()
        .expect(0);
    assert_eq!(finished.text(), run("files").stdout);
}

#[test]
fn a_directory_that_does_not_exist_is_named() {
    let sandbox = Sandbox::new();
    let finished = sandbox
        .wsnap()
        .args([
            "run",
            "--dir",
            "nowhere::/data",
            &module("wat/recursion.wat"),
        ])
        .run();
    finished.expect_one_error(OTHER, &["nowhere"]);
}

#[test]
fn a_file_that_vanished_or_shrank_since_the_stop_is_named() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("data")).expect("a folder");
    let dir = format!("{}::/out", sandbox.path("data").display());
    let files = module("prebuilt/files.wasm");
    // By then the log is open for appending and for reading.
    let id = sandbox.path("id");
    let command = sandbox
        .wsnap()
        .args([
            "run",
            "--stop-at",
            "safepoint=100000",
            "--dir",
            &dir,
            "--id-file",
        ])
        .arg(&id);
    let _ = command.args([&files, "/out"]).run().expect(SUSPENDED);
    let id = fs::read_to_string(&id).expect("the id file was written");
    let log = sandbox.path("data/log.bin");
    let content = fs::read(&log).expect("the program's log");
    assert!(
        !content.is_empty(),
        "the stop comes too early to show anything"
    );
    let resume = || {
        sandbox
            .wsnap()
            .args(["resume", "--dir", &dir, id.trim()])
            .run()
    };

    fs::write(&log, &content[..content.len() / 2]).expect("a shorter log");
    resume().expect_one_error(OTHER, &["log.bin"]);
    fs::remove_file(&log).expect("no log");
    resume().expect_one_error(OTHER, &["log.bin"]);
}

#[test]
fn a_store_that_cannot_be_written_is_named() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("file", "");
    let store = file.join("store");
    let finished = sandbox
        .wsnap()
        .env("WSNAP_STORE", &store)
        .args([
            "run",
            "--stop-at",
            "safepoint=1000",
            &module("wat/recursion.wat"),
        ])
        .run();
    finished.expect_one_error(OTHER, &[&file.display().to_string()]);
}

#[test]
fn a_flag_names_the_store_before_the_environment_does() {
    let sandbox = Sandbox::new();
    let other = sandbox.path("other");
    let command = sandbox.wsnap().arg("run").arg("--store").arg(&other);
    let _ = command
        .args(["--stop-at", "safepoint=1000", &module("wat/recursion.wat")])
        .run()
        .expect(SUSPENDED);
    assert!(other.join("images").is_dir());
    assert!(!sandbox.store().exists());
}

#[test]
fn a_trap_shows_its_reason_and_the_functions_under_way() {
    let sandbox = Sandbox::new();
    let finished = sandbox
        .wsnap()
        .args(["run", "--invoke", "out_of_bounds", &module("wat/traps.wat")])
        .run();
    let finished = finished.expect(134);
    assert_eq!(
        finished.trap(),
        Some("out of bounds memory access"),
        "{}",
        finished.describe()
    );
}
