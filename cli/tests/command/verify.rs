//! What `verify` finds.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::sandbox::Sandbox;
use crate::stored::Stored;

fn files(sandbox: &Sandbox, folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(sandbox.path("store").join(folder)).expect("a folder");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// Replaces a file by one with one bit changed.
fn damage(path: &PathBuf, position: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[position] ^= 1;
    fs::remove_file(path).expect("removed");
    fs::write(path, bytes).expect("damaged");
}

fn damaged(sandbox: &Sandbox) -> Vec<Value> {
    let (stdout, _) = sandbox.expect(1, &["verify", "--json"]);
    let mut all: Vec<Value> = serde_json::from_str(&stdout).expect("a list in JSON");
    all.retain(|checked| checked["intact"] == false);
    all
}

#[test]
fn verify_goes_on_after_the_first_damage_and_names_the_files() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let ids: Vec<_> = (0..4)
        .map(|number| stored.image(number, 1).to_string())
        .collect();
    sandbox.expect(0, &["verify"]);
    let layers = files(&sandbox, "layers");
    damage(&layers[0], 4096);
    damage(&layers[1], 4096);
    let found = damaged(&sandbox);
    assert_eq!(found.len(), 2);
    for (found, kind) in found.iter().zip(["image", "image"]) {
        assert_eq!(found["kind"], kind);
        assert!(ids.iter().any(|id| found["id"] == *id));
        let file = found["files"][0].as_str().expect("a path");
        assert!(layers[..2].contains(&PathBuf::from(file)), "{file}");
    }
    let (stdout, stderr) = sandbox.expect(1, &["verify"]);
    assert_eq!(stdout.matches(" intact\n").count(), 2, "{stdout}");
    assert_eq!(stdout.matches("  read from ").count(), 2, "{stdout}");
    assert!(stderr.starts_with("error: 2 of 4 images"), "{stderr}");
}

#[test]
fn images_that_share_a_damaged_layer_are_all_named() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let memory = vec![7; 4 << 16];
    for global in 0..3 {
        let manifest = stored.manifest(global);
        stored.store.publish(manifest, &[&memory]).expect("stored");
    }
    damage(&files(&sandbox, "layers")[0], 4096);
    assert_eq!(damaged(&sandbox).len(), 3);
}

#[test]
fn what_no_image_uses_is_verified_too() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let id = stored.image(1, 1);
    let record = stored.record(id, None, 0, None).id.to_string();
    stored.store.put_module(b"\0asm\x01\0\0\0").expect("stored");
    stored.store.set_tag("tag", id).expect("tagged");
    stored.store.set_name("name", id).expect("named");
    sandbox.expect(0, &["verify"]);
    fs::write(sandbox.path("store/tags/tag"), "nonsense").expect("damaged");
    fs::write(
        sandbox.path("store/names/name"),
        format!("{}\n", "0".repeat(64)),
    )
    .expect("damaged");
    let path = sandbox.path(&format!("store/records/{record}.json"));
    damage(&path, 5);
    let modules = files(&sandbox, "modules");
    let unused = modules
        .iter()
        .find(|path| fs::metadata(path).expect("a module").len() == 8)
        .expect("the unused module");
    damage(unused, 7);
    let found = damaged(&sandbox);
    let kinds: Vec<_> = found.iter().map(|found| &found["kind"]).collect();
    assert_eq!(kinds, ["module", "record", "name", "tag"]);
    let (stdout, stderr) = sandbox.expect(1, &["verify"]);
    assert!(
        stdout.contains(&format!("record {record} damaged: ")),
        "{stdout}"
    );
    assert!(
        stderr.contains("all images are intact, but 4 other things"),
        "{stderr}"
    );
    sandbox.expect(0, &["verify", &id.to_string()]);
}

#[test]
fn the_pages_and_maps_of_an_image_that_is_gone_are_verified() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let id = stored.image(1, 1);
    fs::remove_file(sandbox.path(&format!("store/images/{id}"))).expect("removed");
    sandbox.expect(0, &["verify"]);
    let layer = &files(&sandbox, "layers")[0];
    damage(layer, 4096);
    assert_eq!(damaged(&sandbox)[0]["kind"], "page map");
    fs::remove_file(&files(&sandbox, "memories")[0]).expect("removed");
    sandbox.expect(0, &["verify"]);
    damage(layer, 8);
    assert_eq!(damaged(&sandbox)[0]["kind"], "layer");
}

#[test]
fn a_record_of_an_image_that_is_missing_is_named() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let id = stored.image(1, 1);
    let record = stored.record(id, None, 0, None);
    fs::remove_file(sandbox.path(&format!("store/images/{id}"))).expect("removed");
    let found = damaged(&sandbox);
    assert_eq!(found[0]["id"], record.id.to_string());
    let message = found[0]["damage"].as_str().expect("a text");
    assert!(message.contains(&id.to_string()), "{message}");
}

#[test]
fn a_damaged_manifest_and_a_missing_module_make_an_image_damaged() {
    let sandbox = Sandbox::new();
    let stored = Stored::new(&sandbox);
    let id = stored.image(1, 1);
    let module = files(&sandbox, "modules").remove(0);
    let bytes = fs::read(&module).expect("the module");
    fs::remove_file(&module).expect("removed");
    assert_eq!(damaged(&sandbox)[0]["id"], id.to_string());
    fs::write(&module, bytes).expect("put back");
    sandbox.expect(0, &["verify"]);
    damage(&sandbox.path(&format!("store/images/{id}")), 20);
    let found = damaged(&sandbox);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["id"], id.to_string());
}

#[test]
fn a_store_that_is_not_there_has_nothing_damaged() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.expect(0, &["verify", "--json"]).0.trim(), "[]");
    let (_, stderr) = sandbox.expect(1, &["verify", "nobody"]);
    assert!(stderr.contains("nobody"), "{stderr}");
    assert!(!sandbox.path("store").exists(), "looking creates nothing");
}
