//! Disks that are full and folders that nobody may write to: whoever asks for a snapshot is told, the program goes on, and
//! when there is room again everything works again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use wsnap_tests::guests::{Run, run};
use wsnap_tests::wsnap::{Finished, Running, Sandbox, Wsnap};

const NAME: &str = "digits";
/// No image of the program fits into it, but what the program prints does.
const ROOM_BYTES: u64 = 64 << 10;

/// Long enough for some snapshots on a busy machine: many seconds of printing digits on an idle one.
fn digits() -> Run {
    run("pi").with_args(&["40000"])
}

fn reference(sandbox: &Sandbox) -> String {
    let command = sandbox.wsnap().args(["run", "--bare"]).program(&digits());
    command.run().expect(0).text()
}

fn start(command: Wsnap) -> Running {
    let command = command.args(["run", "--name", NAME]).program(&digits());
    let mut running = command.start();
    running.wait_for("printed a line", |stdout| stdout.contains(&b'\n'));
    running
}

fn snap(sandbox: &Sandbox) -> Finished {
    sandbox.wsnap().args(["snap", NAME]).run()
}

/// Takes a snapshot that must succeed and returns its id.
fn snap_works(sandbox: &Sandbox) -> String {
    snap(sandbox).expect(0).text().trim().to_owned()
}

/// A program is refused a snapshot while `obstruct` is in effect, goes on, is given one before and after, and ends as if
/// nothing had happened.
fn goes_on_without_snapshots(
    sandbox: &Sandbox,
    mut running: Running,
    obstruct: impl Fn(&mut Running),
    clear: impl Fn(&mut Running),
    messages: &[&str],
) {
    let before = snap_works(sandbox);
    obstruct(&mut running);
    snap(sandbox).expect_one_error(1, messages);
    // A suspension that cannot be stored ends nothing either.
    running.signal(Signal::TERM);
    snap(sandbox).expect_one_error(1, messages);
    // Not before it has been tried.
    running.wait_for_message("goes on");
    clear(&mut running);
    let after = snap_works(sandbox);
    let finished = running.wait().expect(0);
    let whole = reference(sandbox);
    assert_eq!(finished.text(), whole);
    assert!(
        finished.stderr.contains("goes on"),
        "{}",
        finished.describe()
    );
    let _ = sandbox.wsnap().arg("verify").run().expect(0);
    let _ = sandbox.wsnap().arg("gc").run().expect(0);
    for id in [before, after] {
        let rest = sandbox.wsnap().args(["resume", &id]).run().expect(0).text();
        assert!(!rest.is_empty() && whole.ends_with(&rest), "{rest}");
    }
    let left: Vec<_> = fs::read_dir(sandbox.store().join("tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_program_whose_snapshots_are_cut_off_goes_on_and_can_be_snapshotted_later() {
    let sandbox = Sandbox::new();
    let running = start(sandbox.wsnap_with_limits());
    goes_on_without_snapshots(
        &sandbox,
        running,
        |running| running.limit_files(Some(ROOM_BYTES)),
        |running| running.limit_files(None),
        &["File too large"],
    );
}

/// A file system in main memory, as large as a store may get.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    /// None without the privilege to mount one.
    fn mount(path: &'a Path, mebibytes: u64) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={mebibytes}m"))
            .arg("tmpfs")
            .arg(path);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Self(path))
    }

    /// Leaves no block for anybody.
    fn fill(&self) {
        let full = Command::new("dd")
            .args(["if=/dev/zero", "bs=4k"])
            .arg(format!("of={}", self.filler()))
            .output()
            .unwrap();
        assert!(
            String::from_utf8_lossy(&full.stderr).contains("No space left"),
            "{full:?}"
        );
    }

    fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> String {
        self.0.join("filler").display().to_string()
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).output();
    }
}

#[test]
fn a_program_whose_store_is_full_goes_on_and_can_be_snapshotted_when_there_is_room() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let Some(disk) = Disk::mount(&store, 16) else {
        println!(
            "skipped: it takes the privilege to mount a file system; the test with a limit covers the same code"
        );
        return;
    };
    let running = start(sandbox.wsnap());
    goes_on_without_snapshots(
        &sandbox,
        running,
        |_| disk.fill(),
        |_| disk.empty(),
        &["No space left on device"],
    );
}

/// The binary without the privilege to write where permissions forbid it, should the test have it.
fn unprivileged(sandbox: &Sandbox) -> Wsnap {
    match rustix::process::geteuid().is_root() {
        true => sandbox
            .command("setpriv")
            .args([
                "--bounding-set=-dac_override,-dac_read_search",
                "--inh-caps=-all",
            ])
            .arg(wsnap_tests::wsnap::binary()),
        false => sandbox.wsnap(),
    }
}

/// Changes the permissions of all folders of a store.
fn set_mode(folder: &Path, mode: u32) {
    fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            set_mode(&path, mode);
        }
    }
}

#[test]
fn a_program_whose_store_became_unwritable_goes_on_and_can_be_snapshotted_later() {
    let sandbox = Sandbox::new();
    let running = start(unprivileged(&sandbox));
    let store = sandbox.store();
    goes_on_without_snapshots(
        &sandbox,
        running,
        |_| set_mode(&store, 0o500),
        |_| set_mode(&store, 0o700),
        &["Permission denied"],
    );
    // Nobody needs to write in order to resume an image. A program with a name would have to be registered.
    let images = fs::read_dir(store.join("images")).unwrap();
    let ids = images.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let id = ids.last().unwrap();
    set_mode(&store, 0o500);
    let resumed = unprivileged(&sandbox).args(["resume", &id]).run().expect(0);
    assert!(reference(&sandbox).ends_with(&resumed.text()));
    let verified = unprivileged(&sandbox).arg("verify").run();
    set_mode(&store, 0o700);
    let _ = verified.expect(0);
}
