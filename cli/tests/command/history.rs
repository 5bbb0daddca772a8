//! What is told about snapshots: `log` and `ls`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::sandbox::Sandbox;
use crate::stored::{START_MS, Stored, short};

fn json(sandbox: &Sandbox, arguments: &[&str]) -> Vec<Value> {
    let (stdout, _) = sandbox.expect(0, arguments);
    serde_json::from_str(&stdout).expect("a list in JSON")
}

/// What is drawn before the time in each line of a log but the header.
fn drawing(log: &str) -> Vec<&str> {
    let lines = log.lines().skip(1);
    lines.filter_map(|line| line.split("  ").next()).collect()
}

#[test]
fn log_draws_a_chain_straight_and_marks_where_the_image_comes_from() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let mut parent = None;
    let mut ids = Vec::new();
    for hour in 0..4 {
        let id = stored.image(hour, 1);
        parent = Some(stored.record(id, parent.as_ref(), hour.into(), Some("sim")));
        ids.push(id);
    }
    stored.store.set_tag("third", ids[2]).expect("tagged");
    let (log, _) = sandbox.expect(0, &["log", "third"]);
    assert_eq!(drawing(&log), ["●", "●", "@", "○"], "{log}");
    let third = log.lines().nth(3).expect("the third snapshot");
    for part in [
        "2026-01-01T02:00:00Z",
        &short(ids[2]),
        "4.00 KiB",
        "snap",
        "sim",
        "third",
    ] {
        assert!(third.contains(part), "{part} is missing in {third}");
    }
}

#[test]
fn log_draws_a_branch_where_a_program_was_resumed_twice() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let ids: Vec<_> = (0..5).map(|number| stored.image(number, 1)).collect();
    let first = stored.record(ids[0], None, 0, None);
    let second = stored.record(ids[1], Some(&first), 1, None);
    stored.record(ids[2], Some(&second), 2, None);
    let other = stored.record(ids[3], Some(&first), 3, None);
    stored.record(ids[4], Some(&other), 4, None);
    let newest = ids[4].to_string();
    let (log, _) = sandbox.expect(0, &["log", &newest]);
    assert_eq!(drawing(&log), ["●", "├─○", "│ ○", "●", "@"], "{log}");
}

#[test]
fn log_shows_the_tree_of_an_image_or_all_trees() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let (one, two) = (stored.image(1, 1), stored.image(2, 1));
    stored.record(one, None, 0, Some("one"));
    stored.record(two, None, 1, Some("two"));
    let (of_one, _) = sandbox.expect(0, &["log", &one.to_string()]);
    assert!(
        of_one.contains(&short(one)) && !of_one.contains(&short(two)),
        "{of_one}"
    );
    let (all, _) = sandbox.expect(0, &["log"]);
    assert!(
        all.contains(&short(one)) && all.contains(&short(two)),
        "{all}"
    );
}

#[test]
fn log_lists_records_with_their_parents_as_json() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let ids: Vec<_> = (0..3).map(|number| stored.image(number, 1)).collect();
    let root = stored.record(ids[0], None, 0, Some("sim"));
    let child = stored.record(ids[1], Some(&root), 1, Some("sim"));
    stored.record(ids[2], Some(&root), 2, None);
    let entries = json(&sandbox, &["log", "--json", &ids[1].to_string()]);
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[0]["parent"], Value::Null);
    assert_eq!(entries[0]["taken_at_ms"], START_MS);
    assert_eq!(entries[1]["record"], child.id.to_string());
    assert_eq!(entries[1]["parent"], root.id.to_string());
    assert_eq!(entries[1]["parent_image"], ids[0].to_string());
    assert_eq!(entries[1]["added_bytes"], 4096);
    let ancestry: Vec<_> = entries.iter().map(|entry| &entry["ancestry"]).collect();
    assert_eq!(ancestry, [true, true, false]);
}

#[test]
fn labels_and_triggers_of_strangers_cannot_control_the_terminal() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let image = stored.image(1, 1);
    let mut record = wsnap::snapshots::NewRecord::new(image, u64::MAX, "\x1b[2J\nfake");
    record.labels.insert("note".to_owned(), "a\nb".to_owned());
    stored.store.put_record(record).expect("stored");
    for command in [&["log"][..], &["ls"]] {
        let (shown, _) = sandbox.expect(0, command);
        assert_eq!(shown.lines().count(), 2, "{shown}");
        assert!(
            !shown.contains('\x1b') && shown.contains("\\u{1b}"),
            "{shown}"
        );
    }
    assert!(sandbox.expect(0, &["log"]).0.contains("note=a\\nb"));
}

#[test]
fn an_image_without_a_record_has_no_history_and_says_so() {
    let sandbox = Sandbox::new();
    let image = Stored::new(&sandbox).image(1, 1).to_string();
    let (_, stderr) = sandbox.expect(1, &["log", &image]);
    assert!(
        stderr.contains("has no record") && stderr.contains("hint:"),
        "{stderr}"
    );
    let (log, _) = sandbox.expect(0, &["log"]);
    assert_eq!(log.lines().count(), 1, "only the header: {log}");
}

#[test]
fn log_of_what_is_not_there_fails_and_an_empty_store_has_none() {
    let sandbox = Sandbox::new();
    let (_, stderr) = sandbox.expect(1, &["log", "nobody"]);
    assert!(
        stderr.contains("nobody") && stderr.contains("wsnap ls"),
        "{stderr}"
    );
    assert_eq!(sandbox.expect(0, &["log", "--json"]).0.trim(), "[]");
    assert!(!sandbox.path("store").exists(), "looking creates nothing");
}

#[test]
fn a_damaged_record_is_named_and_the_others_are_shown() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let (good, bad) = (stored.image(1, 1), stored.image(2, 1));
    stored.record(good, None, 0, None);
    let record = stored.record(bad, None, 1, None).id.to_string();
    std::fs::write(sandbox.path(&format!("store/records/{record}.json")), "{}").expect("damaged");
    let (stdout, stderr) = sandbox.expect(1, &["log"]);
    assert!(stdout.contains(&short(good)), "{stdout}");
    assert!(stderr.contains(&record), "{stderr}");
}

#[test]
fn a_long_log_whose_reader_leaves_early_ends_well() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let image = stored.image(1, 1);
    let mut parent = None;
    // More lines than a pipe holds.
    for hour in 0..1000 {
        parent = Some(stored.record(image, parent.as_ref(), hour, Some("sim")));
    }
    let mut command = sandbox.command(&["log"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut line = String::new();
    let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
    reader.read_line(&mut line).expect("a line");
    drop(reader);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn ls_shows_when_and_why_the_newest_snapshot_of_an_image_was_taken() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let (known, unknown) = (stored.image(1, 1), stored.image(2, 1));
    let older = stored.record(known, None, 1, None);
    let newer = stored.record(known, Some(&older), 2, Some("sim"));
    let list = json(&sandbox, &["ls", "--json"]);
    let of = |id: &str| list.iter().find(|row| row["id"] == *id).expect("listed");
    let row = of(&known.to_string());
    assert_eq!(row["record"], newer.id.to_string());
    assert_eq!(row["taken_at_ms"], newer.taken_at_ms);
    assert_eq!(row["trigger"], "snap");
    assert_eq!(row["added_bytes"], 4096);
    let row = of(&unknown.to_string());
    for key in ["record", "taken_at_ms", "trigger", "added_bytes"] {
        assert_eq!(row.get(key), Some(&Value::Null), "{key}");
    }
    for key in ["stored_ms", "module", "memory_bytes", "names", "tags"] {
        assert!(row.get(key).is_some_and(|value| !value.is_null()), "{key}");
    }
    let (table, _) = sandbox.expect(0, &["ls"]);
    let line = table.lines().find(|line| line.starts_with(&short(known)));
    let line = line.expect("listed");
    assert!(
        line.contains("2026-01-01T02:00:00Z") && line.contains("snap"),
        "{line}"
    );
}
