//! What documents and tables of the repository name is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use wsnap_tests::fetch::{fetch, pins, sha256};
use wsnap_tests::guests::runs;
use wsnap_tests::{examples_dir, workspace_dir};

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Paths are written in backticks and have a slash or an extension that files of this repository have.
fn paths_in(text: &str) -> BTreeSet<&str> {
    let mut inside_fence = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside_fence = !inside_fence;
        } else if !inside_fence {
            found.extend(
                line.split('`')
                    .skip(1)
                    .step_by(2)
                    .filter(|word| is_path(word)),
            );
        }
    }
    found
}

fn is_path(word: &str) -> bool {
    let plain = word
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    let extension = [".rs", ".md", ".toml", ".wat", ".wasm", ".sh", ".c", ".lock"]
        .iter()
        .any(|end| word.ends_with(end));
    plain && !word.starts_with('/') && !word.starts_with('.') && (word.contains('/') || extension)
}

#[test]
fn every_path_named_in_architecture_md_exists() {
    let root = workspace_dir();
    let text = read(&root.join("ARCHITECTURE.md"));
    let paths = paths_in(&text);
    assert!(
        paths.len() > 10,
        "ARCHITECTURE.md is a map of the code: it names its files in backticks"
    );
    let missing: Vec<_> = paths
        .into_iter()
        .filter(|path| !root.join(path).exists())
        .collect();
    assert!(
        missing.is_empty(),
        "ARCHITECTURE.md names what isn't there: {missing:?}"
    );
}

#[test]
fn every_guest_has_the_checksum_written_down_for_it() {
    let examples = examples_dir();
    let sums = read(&examples.join("SHA256SUMS"));
    let mut listed = BTreeSet::new();
    for line in sums.lines() {
        let (sum, name) = line
            .split_once("  ")
            .unwrap_or_else(|| panic!("not a line of sha256sum: {line:?}"));
        let content =
            fs::read(examples.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            sha256(&content),
            sum,
            "{name}: run guest-examples/build.sh if the source changed"
        );
        listed.insert(name.to_string());
    }
    for folder in ["prebuilt", "wat"] {
        for entry in fs::read_dir(examples.join(folder)).expect("a folder of guests") {
            let name = format!(
                "{folder}/{}",
                entry.expect("an entry").file_name().display()
            );
            assert!(
                listed.contains(&name),
                "{name} is not in guest-examples/SHA256SUMS"
            );
        }
    }
}

#[test]
fn every_pinned_program_can_be_had_and_has_a_run() {
    let used: BTreeSet<_> = runs().into_iter().filter_map(|run| run.fetched).collect();
    for (name, pin) in pins().unwrap_or_else(|error| panic!("{error}")) {
        let path = fetch(&name).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            fs::metadata(&path).expect("the fetched file").len(),
            pin.bytes,
            "{name}"
        );
        assert!(
            used.contains(&name),
            "no run in guest-examples/runs.toml uses {name}"
        );
    }
}

#[test]
fn small_text_guests_that_need_no_toolchain_all_have_a_run_or_a_test() {
    let used: BTreeSet<_> = runs().into_iter().filter_map(|run| run.module).collect();
    // Run by tests of their own, since they have no single result.
    let elsewhere = ["wat/deep_recursion.wat", "wat/endless.wat"];
    for entry in fs::read_dir(examples_dir().join("wat")).expect("a folder of guests") {
        let name = format!("wat/{}", entry.expect("an entry").file_name().display());
        assert!(
            used.contains(Path::new(&name)) || elsewhere.contains(&name.as_str()),
            "nothing runs {name}"
        );
    }
}
