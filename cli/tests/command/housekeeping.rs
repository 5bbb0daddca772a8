//! Removing what is no longer wanted: `rm`, `gc`, `tag --delete`.

use serde_json::Value;

use crate::sandbox::Sandbox;
use crate::stored::{Stored, short};

fn json(sandbox: &Sandbox, arguments: &[&str]) -> Value {
    let (stdout, _) = sandbox.expect(0, arguments);
    serde_json::from_str(&stdout).expect("JSON")
}

fn listed(sandbox: &Sandbox) -> Vec<String> {
    let images = json(sandbox, &["ls", "--json"]);
    let images = images.as_array().expect("a list").iter();
    let mut ids: Vec<_> = images
        .map(|image| image["id"].as_str().expect("an id").to_owned())
        .collect();
    ids.sort();
    ids
}

#[test]
fn rm_removes_several_images_and_tells_which() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let ids: Vec<_> = (0..3)
        .map(|number| stored.image(number, 1).to_string())
        .collect();
    let (stdout, stderr) = sandbox.expect(0, &["rm", &ids[0], &ids[1][..10], &ids[0]]);
    assert_eq!(stdout, format!("removed {}\nremoved {}\n", ids[0], ids[1]));
    assert!(stderr.contains("wsnap gc"), "{stderr}");
    assert_eq!(listed(&sandbox), [ids[2].clone()]);
}

#[test]
fn rm_refuses_what_is_tagged_until_it_is_forced() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let id = stored.image(1, 1);
    stored.store.set_tag("keep", id).expect("tagged");
    let (_, stderr) = sandbox.expect(1, &["rm", "keep"]);
    for part in ["keep", "--force", "tag --delete"] {
        assert!(stderr.contains(part), "{part} is missing in {stderr}");
    }
    assert_eq!(listed(&sandbox), [id.to_string()]);
    let report = json(&sandbox, &["rm", "--force", "--json", "keep"]);
    assert_eq!(report[0]["image"], id.to_string());
    assert_eq!(report[0]["tags"][0], "keep");
    assert_eq!(listed(&sandbox), [""; 0]);
}

#[test]
fn a_program_whose_latest_image_is_removed_falls_back_to_the_one_before() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let (before, latest) = (stored.image(1, 1), stored.image(2, 1));
    let first = stored.record(before, None, 0, Some("sim"));
    stored.record(latest, Some(&first), 1, Some("sim"));
    stored.store.set_name("sim", latest).expect("named");
    let (stdout, _) = sandbox.expect(0, &["rm", "--force", "sim"]);
    assert!(
        stdout.contains(&format!("the latest of sim is now {before}")),
        "{stdout}"
    );
    let (stdout, _) = sandbox.expect(0, &["rm", "--force", "sim"]);
    assert!(stdout.contains("sim has no image any more"), "{stdout}");
}

#[test]
fn an_image_in_use_is_not_removed_and_the_others_are() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let (used, unused) = (stored.image(1, 1), stored.image(2, 1));
    let _open = stored.store.load(used).expect("loaded");
    let arguments = ["rm", "--force", &used.to_string(), &unused.to_string()];
    let (_, stderr) = sandbox.expect(1, &arguments);
    assert!(
        stderr.contains(&used.to_string()) && stderr.contains("wsnap ps"),
        "{stderr}"
    );
    assert_eq!(listed(&sandbox), [used.to_string()]);
}

#[test]
fn a_mistyped_image_keeps_rm_from_removing_any() {
    let sandbox = Sandbox::new();
    let (_, stderr) = sandbox.expect(1, &["rm", "sim"]);
    assert!(stderr.contains("sim"), "{stderr}");
    let missing = "0".repeat(64);
    let (_, stderr) = sandbox.expect(1, &["rm", &missing]);
    assert!(stderr.contains("wsnap ls"), "{stderr}");
    assert!(!sandbox.path("store").exists(), "looking creates nothing");
    let id = Stored::new(&sandbox).image(1, 1).to_string();
    sandbox.expect(1, &["rm", &id, "nobody"]);
    assert_eq!(listed(&sandbox), std::slice::from_ref(&id));
    sandbox.expect(1, &["rm", &missing]);
    sandbox.expect(2, &["rm"]);
}

#[test]
fn what_is_left_of_an_image_whose_file_is_missing_is_removed_by_its_id() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let id = stored.image(1, 1);
    let record = stored.record(id, None, 0, None);
    std::fs::remove_file(sandbox.path(&format!("store/images/{id}"))).expect("removed");
    let report = json(&sandbox, &["rm", "--json", &id.to_string()]);
    assert_eq!(report[0]["records"][0], record.id.to_string());
    assert_eq!(json(&sandbox, &["log", "--json"]), Value::Array(Vec::new()));
}

#[test]
fn a_tag_is_deleted_and_its_image_stays() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let id = stored.image(1, 1);
    stored.store.set_tag("old", id).expect("tagged");
    sandbox.expect(0, &["tag", "--delete", "old"]);
    assert_eq!(listed(&sandbox), [id.to_string()]);
    let (_, stderr) = sandbox.expect(1, &["tag", "--delete", "old"]);
    assert!(stderr.contains("no tag \"old\""), "{stderr}");
    sandbox.expect(2, &["tag", "--delete", "old", "other"]);
    sandbox.expect(2, &["tag", "one"]);
}

#[test]
fn gc_says_plainly_that_unreachable_images_stay_for_a_while() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let (tagged, loose) = (stored.image(1, 1), stored.image(2, 1));
    stored.store.set_tag("keep", tagged).expect("tagged");
    let (stdout, _) = sandbox.expect(0, &["gc"]);
    assert!(stdout.contains("2 images stay"), "{stdout}");
    assert!(stdout.contains("1 image is unreachable"), "{stdout}");
    assert!(stdout.contains("grace period of 14days"), "{stdout}");
    assert!(
        stdout.contains(&short(loose)) && !stdout.contains(&short(tagged)),
        "{stdout}"
    );
}

#[test]
fn gc_deletes_unreachable_images_and_reports_what_it_freed_by_kind() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let (tagged, loose) = (stored.image(1, 1), stored.image(2, 1));
    stored.store.set_tag("keep", tagged).expect("tagged");
    let (stdout, _) = sandbox.expect(0, &["gc", "--dry-run", "--grace", "0s"]);
    assert!(stdout.starts_with("would free"), "{stdout}");
    assert_eq!(listed(&sandbox).len(), 2);
    let report = json(&sandbox, &["gc", "--json", "--grace", "0s"]);
    assert_eq!(report["images"][0], loose.to_string());
    assert_eq!(report["live_images"], 1);
    for kind in ["images", "page_maps", "layers"] {
        assert_eq!(report["freed"][kind]["count"], 1, "{kind}");
    }
    assert!(report["freed"]["bytes"].as_u64() > Some(4096));
    assert_eq!(listed(&sandbox), [tagged.to_string()]);
    let (stdout, _) = sandbox.expect(0, &["gc", "--grace", "0s"]);
    assert!(stdout.starts_with("freed 0 B in 0 files"), "{stdout}");
}

#[test]
fn gc_keeps_the_last_snapshots_of_each_program_and_one_per_period() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let mut parent = None;
    let mut ids = Vec::new();
    for hour in 0..8 {
        let id = stored.image(hour, 1);
        parent = Some(stored.record(id, parent.as_ref(), hour.into(), Some("sim")));
        stored.store.set_name("sim", id).expect("named");
        ids.push(id.to_string());
    }
    let arguments = ["gc", "--json", "--keep-last", "2", "--keep-one-per", "4h"];
    let report = json(&sandbox, &arguments);
    assert_eq!(report["live_images"], 3);
    let mut expected = vec![ids[3].clone(), ids[6].clone(), ids[7].clone()];
    expected.sort();
    assert_eq!(listed(&sandbox), expected);
    let log = json(&sandbox, &["log", "--json", "sim"]);
    assert_eq!(log[1]["parent_image"], ids[3], "the gap is closed");
}

#[test]
fn gc_deletes_nothing_when_it_cannot_know_what_is_needed() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let id = stored.image(1, 1);
    stored
        .store
        .set_tag("keep", stored.image(2, 1))
        .expect("tagged");
    std::fs::write(sandbox.path("store/tags/keep"), "nonsense").expect("damaged");
    let (_, stderr) = sandbox.expect(1, &["gc", "--grace", "0s"]);
    for part in ["tags/keep", "nothing has been deleted", "wsnap verify"] {
        assert!(stderr.contains(part), "{part} is missing in {stderr}");
    }
    assert!(stored.store.manifest(id).is_ok());
}

#[test]
fn durations_and_stores_that_are_none_are_refused() {
    let sandbox = Sandbox::new();
    for arguments in [
        ["gc", "--grace", "soon"],
        ["gc", "--keep-one-per", "0s"],
        ["gc", "--keep-one-per", "hourly"],
        ["gc", "--keep-last", "-1"],
    ] {
        sandbox.expect(2, &arguments);
    }
    let (_, stderr) = sandbox.expect(1, &["gc"]);
    assert!(stderr.contains("no store"), "{stderr}");
    assert!(!sandbox.path("store").exists(), "looking creates nothing");
}
