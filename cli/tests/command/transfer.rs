//! From one machine to another: `export` and `import`. And `stats`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use rustix::pty::OpenptFlags;
use serde_json::Value;

use crate::sandbox::Sandbox;
use crate::stored::Stored;

const COUNTS: &str = r#"(module (func (export "count") (result i32) (local $done i32)
    (loop $again
      (local.set $done (i32.add (local.get $done) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $done) (i32.const 1000))))
    (local.get $done)))"#;

fn json(sandbox: &Sandbox, arguments: &[&str]) -> Value {
    let (stdout, _) = sandbox.expect(0, arguments);
    serde_json::from_str(&stdout).expect("JSON")
}

/// Feeds bytes to `wsnap import` and returns the exit code and both outputs.
fn import(sandbox: &Sandbox, bytes: &[u8], arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = sandbox.command(&[&["import"], arguments, &["-"]].concat());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    // It stops reading when it has seen enough.
    let _ = child.stdin.take().expect("a pipe").write_all(bytes);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn a_program_goes_on_in_another_store_under_its_name() {
    let here = Sandbox::new();
    here.write("counts.wat", COUNTS);
    let run = [
        "run",
        "--invoke",
        "count",
        "--name",
        "sim",
        "--stop-at",
        "safepoint=500",
        "counts.wat",
    ];
    here.expect(85, &run);
    let stream = here.run(&["export", "sim", "-"]).stdout;
    let there = Sandbox::new();
    let (code, stdout, stderr) = import(&there, &stream, &["--tag", "moved"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("wsnap resume sim"), "{stderr}");
    let images = json(&there, &["ls", "--json"]);
    assert_eq!(images[0]["id"], stdout.trim(), "the id alone is printed");
    assert_eq!(images[0]["tags"][0], "moved");
    assert_eq!(there.expect(0, &["resume", "sim"]).0, "1000\n");
    let again = json(&there, &["ls", "--json"]);
    assert_eq!(images, again);
}

#[test]
fn a_file_holds_several_images_with_their_ancestors_and_records() {
    let here = Sandbox::new();
    let stored = Stored::new(&here);
    let ids: Vec<_> = (0..4).map(|number| stored.image(number, 1)).collect();
    let root = stored.record(ids[0], None, 0, Some("sim"));
    stored.record(ids[1], Some(&root), 1, Some("sim"));
    stored.record(ids[2], Some(&root), 2, Some("sim"));
    let (one, two) = (ids[1].to_string(), ids[2].to_string());
    let exported = json(
        &here,
        &[
            "export",
            "--json",
            "--ancestors",
            "--level",
            "19",
            &one,
            &two,
            "f",
        ],
    );
    assert_eq!(exported["images"].as_array().map(Vec::len), Some(3));
    assert_eq!(exported["records"], 3);
    let file = here.path("f");
    assert_eq!(
        exported["stream_bytes"],
        fs::metadata(&file).expect("the file").len()
    );

    let there = Sandbox::new();
    let imported = json(&there, &["import", "--json", file.to_str().expect("text")]);
    let mut expected = [one.clone(), two];
    expected.sort();
    assert_eq!(imported["images"], serde_json::json!(expected));
    assert_eq!(imported["new_images"].as_array().map(Vec::len), Some(3));
    let log = json(&there, &["log", "--json", &one]);
    assert_eq!(log[1]["parent_image"], ids[0].to_string());
    let again = json(&there, &["import", "--json", file.to_str().expect("text")]);
    assert_eq!(again["new_images"], serde_json::json!([]));
}

#[test]
fn an_export_replaces_a_file_at_once_and_only_its_owner_can_read_it() {
    let sandbox = Sandbox::new();
    let id = Stored::new(&sandbox).image(1, 1).to_string();
    sandbox.write("f", "what was there before");
    sandbox.expect(0, &["export", &id, "f"]);
    let metadata = fs::metadata(sandbox.path("f")).expect("the file");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    sandbox.expect(0, &["import", "f"]);
    std::os::unix::fs::symlink("f", sandbox.path("link")).expect("a link");
    sandbox.expect(0, &["export", &id, "link"]);
    let link = fs::symlink_metadata(sandbox.path("link")).expect("the link");
    assert!(link.is_symlink(), "what it points at was written");
    sandbox.expect(0, &["export", &id, "/dev/null"]);
    sandbox.expect(1, &["export", &id, "."]);
}

/// The two ends of a new terminal: the one that shows it, and the one that programs run in.
fn terminal() -> (fs::File, fs::File) {
    let screen = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    rustix::pty::grantpt(&screen).expect("granted");
    rustix::pty::unlockpt(&screen).expect("unlocked");
    let name = rustix::pty::ptsname(&screen, Vec::new()).expect("a name");
    let path = name.to_str().expect("a path");
    let inside = fs::File::options().read(true).write(true).open(path);
    (screen.into(), inside.expect("the inner end"))
}

#[test]
fn terminals_are_spared_from_exports() {
    let sandbox = Sandbox::new();
    let id = Stored::new(&sandbox).image(1, 1).to_string();
    let (_screen, inside) = terminal();
    let mut export = sandbox.command(&["export", &id, "-"]);
    let output = export.stderr(Stdio::piped()).stdout(inside).output();
    let output = output.expect("the binary runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("terminal") && stderr.contains("hint:"),
        "{stderr}"
    );
    let (_screen, inside) = terminal();
    let output = sandbox.command(&["import", "-"]).stdin(inside).output();
    let output = output.expect("the binary runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("terminal"), "{stderr}");
}

#[test]
fn an_export_that_fails_leaves_no_file() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let id = stored.image(1, 1).to_string();
    sandbox.expect(1, &["export", &id, "nobody", "f"]);
    let layers = fs::read_dir(sandbox.path("store/layers")).expect("the layers");
    for layer in layers {
        fs::remove_file(layer.expect("an entry").path()).expect("removed");
    }
    let (_, stderr) = sandbox.expect(1, &["export", &id, "f"]);
    assert!(
        stderr.contains("store/layers/") && stderr.contains("hint:"),
        "{stderr}"
    );
    let left: Vec<_> = fs::read_dir(sandbox.path("."))
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(left, ["store"]);
    sandbox.expect(1, &["export", &id, "nowhere/f"]);
    sandbox.expect(2, &["export", &id]);
    sandbox.expect(2, &["export", "--level", "23", &id, "f"]);
}

#[test]
fn an_import_that_is_cut_short_changed_or_no_export_at_all_stores_nothing() {
    let here = Sandbox::new();
    let id = Stored::new(&here).image(1, 1).to_string();
    let stream = here.run(&["export", &id, "-"]).stdout;
    let there = Sandbox::new();
    let mut changed = stream.clone();
    changed[stream.len() / 2] ^= 1;
    for bytes in [&stream[..stream.len() - 1], &changed, b"hello", b""] {
        let (code, stdout, stderr) = import(&there, bytes, &[]);
        assert_eq!(code, Some(1), "{stderr}");
        assert_eq!(stdout, "");
        assert!(stderr.contains("standard input"), "{stderr}");
        assert!(stderr.contains("nothing has been imported"), "{stderr}");
    }
    assert_eq!(json(&there, &["ls", "--json"]), serde_json::json!([]));
    let (_, stderr) = there.expect(1, &["import", "nowhere"]);
    assert!(stderr.contains("cannot open nowhere"), "{stderr}");
    let (code, _, stderr) = import(&there, &stream, &["--tag", "../x"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(json(&there, &["ls", "--json"]), serde_json::json!([]));
}

#[test]
fn a_name_that_is_taken_stays_with_its_program() {
    let here = Sandbox::new();
    let stored = Stored::new(&here);
    let sent = stored.image(1, 1);
    stored.store.set_name("sim", sent).expect("named");
    here.expect(0, &["export", "sim", "f"]);
    let there = Sandbox::new();
    let stored = Stored::new(&there);
    let own = stored.image(2, 2);
    stored.store.set_name("sim", own).expect("named");
    let file = here.path("f");
    let (stdout, stderr) = there.expect(0, &["import", file.to_str().expect("text")]);
    assert_eq!(stdout, format!("{sent}\n"));
    assert!(
        stderr.contains("sim belongs to another program"),
        "{stderr}"
    );
    assert_eq!(stored.store.resolve("sim").expect("there"), own);
}

#[test]
fn a_tag_for_several_images_is_refused_and_they_are_told_nevertheless() {
    let here = Sandbox::new();
    let stored = Stored::new(&here);
    let ids = [
        stored.image(1, 1).to_string(),
        stored.image(2, 1).to_string(),
    ];
    here.expect(0, &["export", &ids[0], &ids[1], "f"]);
    let there = Sandbox::new();
    let file = here.path("f");
    let arguments = ["import", "--tag", "x", file.to_str().expect("text")];
    let (stdout, stderr) = there.expect(1, &arguments);
    assert_eq!(stdout.lines().count(), 2);
    assert!(stderr.contains("nothing got the tag x"), "{stderr}");
}

#[test]
fn stats_tell_how_much_images_share() {
    let sandbox = Sandbox::new();
    let empty = json(&sandbox, &["stats", "--json"]);
    assert_eq!(empty["images"]["count"], 0);
    assert_eq!(empty["sharing_factor"], 1.0);
    assert!(!sandbox.path("store").exists(), "looking creates nothing");
    let stored = Stored::new(&sandbox);
    let memory = vec![7; 4 << 16];
    for global in 0..4 {
        let manifest = stored.manifest(global);
        stored.store.publish(manifest, &[&memory]).expect("stored");
    }
    let report = json(&sandbox, &["stats", "--json"]);
    assert_eq!(report["images"]["count"], 4);
    assert_eq!(report["layers"]["count"], 1);
    assert_eq!(report["memory_bytes"], 4 * (4 << 16));
    assert_eq!(report["unshared_bytes"], 4 * (4 << 16));
    assert!(report["sharing_factor"].as_f64() > Some(3.5), "{report}");
    let (shown, _) = sandbox.expect(0, &["stats"]);
    assert!(
        shown.contains("1.00 MiB") && shown.contains("sharing saves"),
        "{shown}"
    );
}
