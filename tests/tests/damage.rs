//! Nothing that happens to a store or its disk gives a wrong result, and older images stay resumable.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use wsnap_tests::examples_dir;
use wsnap_tests::guests::{Run, run};
use wsnap_tests::wsnap::{Finished, SUSPENDED, Sandbox, Wsnap};

const OTHER: i32 = 1;

/// A program with a stored older image and a newer one.
struct TwoImages {
    sandbox: Sandbox,
    run: Run,
    older: Image,
    newer: Image,
}

struct Image {
    id: String,
    /// What the program printed up to here.
    before: Vec<u8>,
    /// The store's files when this was its newest image.
    files: BTreeSet<PathBuf>,
}

impl TwoImages {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let run = run("queue").with_args(&["30"]);
        let first = begin(&sandbox, &run, "20000");
        let older = image(&sandbox, first.stdout);
        let resume = [
            "resume",
            "--stop-at",
            "safepoint=50000",
            "--id-file",
            "id",
            &older.id,
        ];
        let second = sandbox.wsnap().args(resume).run().expect(SUSPENDED);
        let newer = image(&sandbox, [older.before.clone(), second.stdout].concat());
        Self {
            sandbox,
            run,
            older,
            newer,
        }
    }

    /// Asserts that an image gives the rest of the program's output.
    fn goes_on(&self, image: &Image) {
        let finished = self
            .sandbox
            .wsnap()
            .args(["resume", &image.id])
            .run()
            .expect(0);
        self.is_rest(image, &finished);
    }

    fn is_rest(&self, image: &Image, finished: &Finished) {
        let whole = self
            .sandbox
            .wsnap()
            .args(["run", "--bare"])
            .program(&self.run)
            .run()
            .expect(0);
        let together = [image.before.clone(), finished.stdout.clone()].concat();
        assert_eq!(
            String::from_utf8_lossy(&together),
            whole.text(),
            "{}",
            finished.describe()
        );
    }

    /// With a file changed, resuming either says so or doesn't need the file; it never gives something else.
    fn is_refused_or_right(&self, image: &Image, file: &Path) -> bool {
        let finished = self.sandbox.wsnap().args(["resume", &image.id]).run();
        if finished.code() == Some(0) {
            self.is_rest(image, &finished);
            return false;
        }
        assert!(
            finished.stdout.is_empty(),
            "{} is damaged, yet it ran:\n{}",
            file.display(),
            finished.describe()
        );
        finished.expect_one_error(OTHER, &[]);
        true
    }
}

fn begin(sandbox: &Sandbox, run: &Run, safepoint: &str) -> Finished {
    let stop = format!("safepoint={safepoint}");
    let command = sandbox
        .wsnap()
        .args(["run", "--stop-at", &stop, "--id-file", "id"]);
    command.program(run).run().expect(SUSPENDED)
}

fn image(sandbox: &Sandbox, before: Vec<u8>) -> Image {
    let id = fs::read_to_string(sandbox.path("id"))
        .expect("the id file was written")
        .trim()
        .to_string();
    Image {
        id,
        before,
        files: files(&sandbox.store()),
    }
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in
            fs::read_dir(&next).unwrap_or_else(|error| panic!("{}: {error}", next.display()))
        {
            let path = entry.expect("an entry of the store").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path);
            }
        }
    }
    found
}

/// Changes a file for the time of a test, then puts it back.
fn with_damage<T>(file: &Path, damage: impl FnOnce(&mut Vec<u8>), test: impl FnOnce() -> T) -> T {
    let good = fs::read(file).expect("a file of the store");
    let mut bad = good.clone();
    damage(&mut bad);
    replace(file, &bad);
    let result = test();
    replace(file, &good);
    result
}

/// Store files may be read-only, and others may have them mapped: a new file takes the place.
fn replace(file: &Path, content: &[u8]) {
    let partial = file.with_extension("partial");
    fs::write(&partial, content).expect("a new file");
    fs::rename(&partial, file).expect("put in place");
}

fn places(length: usize) -> BTreeSet<usize> {
    let spread = (0..6).map(|n| n * length / 6);
    [0, 8, 12, 100, length.saturating_sub(1)]
        .into_iter()
        .chain(spread)
        .filter(|place| *place < length)
        .collect()
}

#[test]
fn a_changed_byte_anywhere_in_an_image_is_found_and_the_older_image_goes_on() {
    let both = TwoImages::new();
    let added: Vec<_> = both
        .newer
        .files
        .difference(&both.older.files)
        .cloned()
        .collect();
    assert!(!added.is_empty());
    for file in &added {
        let length = fs::metadata(file).expect("a file of the store").len() as usize;
        let mut refused = 0;
        for place in places(length) {
            let flip = |bytes: &mut Vec<u8>| bytes[place] ^= 0x10;
            refused += u32::from(with_damage(file, flip, || {
                both.is_refused_or_right(&both.newer, file)
            }));
        }
        let in_use = ["images", "memories"]
            .iter()
            .any(|part| file.starts_with(both.sandbox.store().join(part)));
        assert!(
            refused > 0 || !in_use,
            "no change to {} was ever found",
            file.display()
        );
        with_damage(
            file,
            |bytes| bytes[length / 2] ^= 1,
            || both.goes_on(&both.older),
        );
    }
    both.goes_on(&both.newer);
}

#[test]
fn a_changed_byte_in_a_layer_is_found_before_the_program_runs() {
    let both = TwoImages::new();
    let layers = both.sandbox.store().join("layers");
    let added = both
        .newer
        .files
        .difference(&both.older.files)
        .filter(|file| file.starts_with(&layers));
    let mut seen = 0;
    for file in added {
        let length = fs::metadata(file).expect("a layer").len() as usize;
        let refused = with_damage(
            file,
            |bytes| bytes[length - 1] ^= 0xff,
            || both.is_refused_or_right(&both.newer, file),
        );
        assert!(refused, "{}", file.display());
        seen += 1;
    }
    assert!(seen > 0, "the newer image has a layer of its own");
}

#[test]
fn a_truncated_or_missing_file_is_found_and_the_older_image_goes_on() {
    let both = TwoImages::new();
    let added: Vec<_> = both
        .newer
        .files
        .difference(&both.older.files)
        .cloned()
        .collect();
    for file in &added {
        with_damage(
            file,
            |bytes| bytes.truncate(bytes.len() / 2),
            || both.is_refused_or_right(&both.newer, file),
        );
        with_damage(file, Vec::clear, || {
            both.is_refused_or_right(&both.newer, file)
        });
        let hidden = file.with_extension("hidden");
        fs::rename(file, &hidden).expect("hidden");
        both.is_refused_or_right(&both.newer, file);
        both.goes_on(&both.older);
        fs::rename(&hidden, file).expect("back again");
    }
    both.goes_on(&both.newer);
}

#[test]
fn another_format_version_is_named() {
    let both = TwoImages::new();
    let images = both.sandbox.store().join("images");
    let mut bytes = fs::read(images.join(&both.newer.id)).expect("the image");
    assert_eq!(
        &bytes[..12],
        b"WSNAPIMG\x01\0\0\0",
        "FORMAT.md: magic and version come first"
    );
    bytes[8] = 99;
    let id = blake3::hash(&bytes).to_hex().to_string();
    fs::write(images.join(&id), &bytes).expect("an image of the future");
    for command in ["resume", "inspect"] {
        both.sandbox
            .wsnap()
            .args([command, &id])
            .run()
            .expect_one_error(OTHER, &["version", "99"]);
    }
    both.goes_on(&both.older);
}

#[test]
fn a_store_of_another_version_is_left_alone() {
    let both = TwoImages::new();
    let version = both.sandbox.store().join("version");
    with_damage(
        &version,
        |bytes| *bytes = b"wsnap store 99\n".to_vec(),
        || {
            both.sandbox
                .wsnap()
                .args(["resume", &both.newer.id])
                .run()
                .expect_one_error(OTHER, &["99"]);
            both.sandbox
                .wsnap()
                .arg("ls")
                .run()
                .expect_one_error(OTHER, &["99"]);
        },
    );
    both.goes_on(&both.newer);
}

/// The shell sets the limit: a process that wants to write more gets an error, as from a full disk.
fn with_file_size_limit(sandbox: &Sandbox, blocks: u32) -> Wsnap {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    sandbox
        .command("sh")
        .arg("-c")
        .arg(script)
        .arg(wsnap_tests::wsnap::binary())
}

#[test]
fn a_full_disk_while_writing_is_an_error_and_leaves_older_images_intact() {
    let both = TwoImages::new();
    let before = files(&both.sandbox.store());
    let images = |files: &BTreeSet<PathBuf>| -> Vec<PathBuf> {
        let folder = both.sandbox.store().join("images");
        files
            .iter()
            .filter(|file| file.starts_with(&folder))
            .cloned()
            .collect()
    };
    // So soon after the older stop the program has printed nothing that would meet the limit itself.
    let resume = [
        "resume",
        "--stop-at",
        "safepoint=100",
        "--id-file",
        "other-id",
        &both.newer.id,
    ];
    for blocks in [2, 16] {
        let command = with_file_size_limit(&both.sandbox, blocks);
        command.args(resume).run().expect_one_error(OTHER, &[]);
        assert_eq!(
            images(&files(&both.sandbox.store())),
            images(&before),
            "no half image"
        );
    }
    both.goes_on(&both.older);
    both.goes_on(&both.newer);
    let _ = both.sandbox.wsnap().args(resume).run().expect(SUSPENDED);
}

#[test]
fn four_processes_resume_the_same_image_at_once() {
    let both = TwoImages::new();
    let started: Vec<_> = (0..4)
        .map(|_| {
            both.sandbox
                .wsnap()
                .args(["resume", &both.newer.id])
                .start()
        })
        .collect();
    for running in started {
        both.is_rest(&both.newer, &running.wait().expect(0));
    }
}

#[test]
fn four_processes_write_the_same_image_at_once() {
    let sandbox = Sandbox::new();
    let module = examples_dir().join("wat/memory.wat");
    let started: Vec<_> = (0..4)
        .map(|n| {
            let command =
                sandbox
                    .wsnap()
                    .args(["run", "--deterministic", "--stop-at", "safepoint=20000"]);
            command
                .arg("--id-file")
                .arg(sandbox.path(&format!("id{n}")))
                .arg(&module)
                .start()
        })
        .collect();
    for running in started {
        let _ = running.wait().expect(SUSPENDED);
    }
    let ids: BTreeSet<_> = (0..4)
        .map(|n| fs::read_to_string(sandbox.path(&format!("id{n}"))).expect("an id"))
        .collect();
    assert_eq!(ids.len(), 1, "equal states have one id: {ids:?}");
    let id = ids.first().expect("one id");
    let _ = sandbox
        .wsnap()
        .args(["resume", id.trim()])
        .run()
        .expect(run("memory").exit);
}
