//! Starting the `wsnap` binary with a store of its own, and looking at what came of it.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::TempDir;

use crate::guests::Run;
use crate::workspace_dir;

/// The exit code of a program that was suspended.
pub const SUSPENDED: i32 = 85;
/// The exit code of a program that trapped.
pub const TRAPPED: i32 = 134;

/// No single process of these tests takes longer; one that does hangs, and is killed.
const PROCESS_SECONDS_MAX: u64 = 600;

/// The binary under test: `WSNAP_BIN`, else the one beside the test executable, which is built if it isn't there.
///
/// # Panics
///
/// If there is none and it can't be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = env::var_os("WSNAP_BIN") {
            return path.into();
        }
        let path = profile_dir().join(format!("wsnap{}", env::consts::EXE_SUFFIX));
        if !path.exists() {
            build();
        }
        assert!(
            path.exists(),
            "{} is missing: run `cargo build --release` or set WSNAP_BIN",
            path.display()
        );
        path
    })
}

/// `target/release` or the like: test executables lie in its folder `deps`.
fn profile_dir() -> PathBuf {
    let test = env::current_exe().expect("a running test has an executable");
    let deps = test.parent().expect("an executable lies in a folder");
    deps.parent()
        .expect("test executables lie in target/PROFILE/deps")
        .to_path_buf()
}

/// Builds with the features of the whole workspace, so that no dependency is compiled a second time.
fn build() {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--quiet", "--workspace", "--bin", "wsnap"])
        .current_dir(workspace_dir());
    if !cfg!(debug_assertions) || profile_dir().ends_with("release") {
        command.arg("--release");
    }
    command.env(
        "CARGO_TARGET_DIR",
        profile_dir()
            .parent()
            .expect("target is above target/PROFILE"),
    );
    let status = command.status().expect("cargo can be started");
    assert!(status.success(), "`cargo build --bin wsnap` failed");
}

/// A place of its own for a test: store, code cache, scratch files. Gone when dropped.
pub struct Sandbox {
    folder: TempDir,
    cache: PathBuf,
}

impl Sandbox {
    /// A new, empty place. The code cache is shared by all tests, so that each module is compiled once.
    ///
    /// # Panics
    ///
    /// If no temporary folder can be made.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("wsnap-test")
            .tempdir()
            .expect("a temporary folder");
        Self {
            folder,
            cache: profile_dir().join("wsnap-tests-code-cache"),
        }
    }

    /// A path inside.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file inside and returns its path.
    ///
    /// # Panics
    ///
    /// If it can't be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// The store's folder. It doesn't exist before the first snapshot.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// The binary, with this sandbox's store.
    #[must_use]
    pub fn wsnap(&self) -> Wsnap {
        self.command(binary())
    }

    /// The binary, with errors where its files would grow beyond [`Running::limit_files`]: where nobody says otherwise, that
    /// kills a process.
    #[must_use]
    pub fn wsnap_with_limits(&self) -> Wsnap {
        let shell = self.command("sh");
        shell
            .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
            .arg(binary())
    }

    /// Another program that in the end executes the binary, with the same settings.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Wsnap {
        let mut command = Command::new(program);
        command
            .env("WSNAP_STORE", self.store())
            .env("WSNAP_CACHE", &self.cache)
            .env_remove("RUST_BACKTRACE");
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        // Regular files take any amount of output, so that nobody has to read along.
        let output = TempDir::new_in(self.folder.path())
            .expect("a folder for output")
            .keep();
        Wsnap {
            command,
            output,
            stdout: None,
            stderr: None,
        }
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

/// A command line that is being put together.
pub struct Wsnap {
    command: Command,
    output: PathBuf,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
}

impl Wsnap {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Adds a program of the table, and its arguments.
    ///
    /// # Panics
    ///
    /// If the program cannot be had.
    #[must_use]
    pub fn program(self, run: &Run) -> Self {
        let module = run.module_path().unwrap_or_else(|error| panic!("{error}"));
        self.arg(module).args(&run.args)
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Standard input, which else is empty.
    #[must_use]
    pub fn stdin(mut self, input: impl Into<Stdio>) -> Self {
        self.command.stdin(input);
        self
    }

    /// Standard output, which else is collected: then nothing of it is found in [`Finished`].
    #[must_use]
    pub fn stdout(mut self, output: impl Into<Stdio>) -> Self {
        self.stdout = Some(output.into());
        self
    }

    /// Standard error, which else is collected.
    #[must_use]
    pub fn stderr(mut self, output: impl Into<Stdio>) -> Self {
        self.stderr = Some(output.into());
        self
    }

    /// Starts the process.
    ///
    /// # Panics
    ///
    /// If it can't be started.
    #[must_use]
    pub fn start(mut self) -> Running {
        let create = |name| File::create(self.output.join(name)).expect("a file for output");
        let (stdout, stderr) = (create("stdout"), create("stderr"));
        self.command
            .stdout(self.stdout.take().unwrap_or(stdout.into()))
            .stderr(self.stderr.take().unwrap_or(stderr.into()));
        let line = format!("{:?}", self.command);
        let child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        Running {
            child: Some(child),
            output: self.output,
            line,
        }
    }

    /// Starts the process and waits for its end.
    #[must_use]
    pub fn run(self) -> Finished {
        self.start().wait()
    }
}

/// A process that has been started. Dropping it kills it.
pub struct Running {
    child: Option<Child>,
    output: PathBuf,
    line: String,
}

impl Running {
    fn child(&mut self) -> &mut Child {
        self.child
            .as_mut()
            .expect("the process is taken only by waiting for it")
    }

    /// The process id.
    pub fn pid(&mut self) -> u32 {
        self.child().id()
    }

    /// The pipe to standard input, if there is one.
    pub fn take_stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child().stdin.take()
    }

    /// Sends a signal.
    ///
    /// # Panics
    ///
    /// If the process is gone.
    pub fn signal(&mut self, signal: Signal) {
        let pid = Pid::from_child(self.child());
        kill_process(pid, signal)
            .unwrap_or_else(|error| panic!("{}: can't be signalled: {error}", self.line));
    }

    /// Refuses to let the process's files grow beyond a size, at any byte of a write: as a full disk does, without privileges.
    ///
    /// # Panics
    ///
    /// If the process is gone.
    pub fn limit_files(&mut self, bytes: Option<u64>) {
        let pid = Pid::from_child(self.child());
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(Some(pid), Resource::Fsize, limit)
            .unwrap_or_else(|error| panic!("{}: can't be limited: {error}", self.line));
    }

    /// What the process has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> Vec<u8> {
        self.written("stdout")
    }

    /// What the process has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.written("stderr")).into_owned()
    }

    /// Whether the process has ended.
    ///
    /// # Panics
    ///
    /// If the system doesn't tell.
    pub fn has_ended(&mut self) -> bool {
        let ended = self.child().try_wait();
        ended.expect("the process can be waited for").is_some()
    }

    fn written(&self, stream: &str) -> Vec<u8> {
        fs::read(self.output.join(stream)).expect("the output file is there")
    }

    /// Waits until standard output satisfies a condition.
    ///
    /// # Panics
    ///
    /// If the process ends before or takes too long.
    pub fn wait_for(&mut self, what: &str, condition: impl Fn(&[u8]) -> bool) {
        self.wait_for_output("stdout", what, condition);
    }

    /// Waits until standard error has a text.
    ///
    /// # Panics
    ///
    /// If the process ends before or takes too long.
    pub fn wait_for_message(&mut self, text: &str) {
        self.wait_for_output("stderr", text, |stderr| {
            String::from_utf8_lossy(stderr).contains(text)
        });
    }

    fn wait_for_output(&mut self, stream: &str, what: &str, condition: impl Fn(&[u8]) -> bool) {
        let start = Instant::now();
        while !condition(&self.written(stream)) {
            let ended = self
                .child()
                .try_wait()
                .expect("the process can be waited for");
            let late = start.elapsed().as_secs() > PROCESS_SECONDS_MAX;
            if (ended.is_some() && !condition(&self.written(stream))) || late {
                let stderr = fs::read(self.output.join("stderr")).unwrap_or_default();
                panic!(
                    "{}: never {what}\n{}",
                    self.line,
                    String::from_utf8_lossy(&stderr)
                );
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for the end.
    ///
    /// # Panics
    ///
    /// If it takes too long.
    #[must_use]
    pub fn wait(mut self) -> Finished {
        let start = Instant::now();
        let mut pause = Duration::from_micros(200);
        let status = loop {
            if let Some(status) = self
                .child()
                .try_wait()
                .expect("the process can be waited for")
            {
                break status;
            }
            if start.elapsed().as_secs() > PROCESS_SECONDS_MAX {
                panic!(
                    "{} hangs: it was killed after {PROCESS_SECONDS_MAX} s",
                    self.line
                );
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        };
        self.child = None;
        let read = |name: &str| fs::read(self.output.join(name)).expect("the output file is there");
        Finished {
            status,
            stdout: read("stdout"),
            stderr: String::from_utf8_lossy(&read("stderr")).into_owned(),
            line: self.line.clone(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself in the meantime, which is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A process that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All of standard output.
    pub stdout: Vec<u8>,
    /// All of standard error.
    pub stderr: String,
    /// The command line, for messages.
    pub line: String,
}

impl Finished {
    /// The exit code; none if a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The kind of trap that standard error tells of.
    #[must_use]
    pub fn trap(&self) -> Option<&str> {
        self.stderr.split("wasm trap: ").nth(1)?.lines().next()
    }

    /// Everything about it, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        let Self {
            status,
            stderr,
            line,
            ..
        } = self;
        format!(
            "{line}\n{status}\n--- standard output:\n{}\n--- standard error:\n{stderr}",
            self.text()
        )
    }

    /// Asserts the exit code and that nothing panicked; returns itself.
    ///
    /// # Panics
    ///
    /// If it doesn't hold.
    #[track_caller]
    #[must_use]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "{}", self.describe());
        assert!(!self.stderr.contains("panicked at"), "{}", self.describe());
        self
    }

    /// Asserts that it ended with exactly one error message that contains all these texts, and without a panic.
    ///
    /// # Panics
    ///
    /// If it doesn't hold.
    #[track_caller]
    pub fn expect_one_error(self, code: i32, texts: &[&str]) {
        let finished = self.expect(code);
        let errors = finished
            .stderr
            .lines()
            .filter(|line| line.starts_with("error:"))
            .count();
        assert_eq!(
            errors,
            1,
            "one message was expected\n{}",
            finished.describe()
        );
        for text in texts {
            assert!(
                finished.stderr.contains(text),
                "the message lacks {text:?}\n{}",
                finished.describe()
            );
        }
    }
}
