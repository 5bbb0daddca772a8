//! Interactive interpreters on terminals: stopped while they wait for input at one, they go on at another.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use wsnap_tests::fetch::fetch;
use wsnap_tests::wsnap::{Running, SUSPENDED, Sandbox, Wsnap, binary};

/// Nothing that is waited for takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A terminal and who sits at it.
struct Terminal {
    keyboard: File,
    path: PathBuf,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn open() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours: OwnedFd = openpt(flags).expect("a new terminal");
        grantpt(&ours).expect("a new terminal");
        unlockpt(&ours).expect("a new terminal");
        let name = ptsname(&ours, Vec::new()).expect("a terminal has a name");
        let path = PathBuf::from(name.into_string().expect("an ASCII name"));
        let keyboard = File::from(ours);
        let mut output = keyboard.try_clone().expect("a second descriptor");
        let screen = Arc::new(Mutex::new(Vec::new()));
        let shown = screen.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Reading fails when nobody has the terminal open any more.
            while let Ok(count) = output.read(&mut bytes) {
                let mut shown = shown.lock().expect("nobody panics with it");
                shown.extend_from_slice(&bytes[..count]);
            }
        });
        Self {
            keyboard,
            path,
            screen,
        }
    }

    fn connect(&self, command: Wsnap) -> Running {
        let open = || {
            let mut options = OpenOptions::new();
            std::os::unix::fs::OpenOptionsExt::custom_flags(
                &mut options,
                OFlags::NOCTTY.bits().cast_signed(),
            );
            let theirs = options.read(true).write(true).open(&self.path);
            theirs.expect("the terminal can be opened")
        };
        command.stdin(open()).stdout(open()).stderr(open()).start()
    }

    fn type_in(&mut self, text: &str) {
        self.keyboard
            .write_all(text.as_bytes())
            .expect("a terminal takes what is typed");
    }

    fn shown(&self) -> String {
        let shown = self.screen.lock().expect("nobody panics with it");
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Waits until the screen ends with this.
    #[track_caller]
    fn wait_for(&self, end: &str) {
        let start = Instant::now();
        while !self.shown().ends_with(end) {
            let shown = self.shown();
            assert!(start.elapsed() < PATIENCE, "never shown: {end:?}\n{shown}");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn image(sandbox: &Sandbox) -> String {
    let id = fs::read_to_string(sandbox.path("id")).expect("the id file was written");
    id.trim().to_string()
}

fn python(command: Wsnap) -> Wsnap {
    let module = fetch("cpython").unwrap_or_else(|error| panic!("{error}"));
    let command = command.args(["run", "--id-file", "id"]).arg(module);
    command.args(["-i", "-q"])
}

#[test]
fn an_interpreter_stopped_at_its_prompt_goes_on_at_that_of_another_terminal() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open();
    let mut running = terminal.connect(python(sandbox.wsnap()));
    terminal.wait_for(">>> ");
    terminal.type_in("kept = [40]\n");
    terminal.wait_for("kept = [40]\r\n>>> ");
    for number in 41..44 {
        running.signal(Signal::TERM);
        let _ = running.wait().expect(SUSPENDED);
        terminal = Terminal::open();
        let resume = sandbox.wsnap().args(["resume", "--id-file", "id"]);
        running = terminal.connect(resume.arg(image(&sandbox)));
        terminal.type_in(&format!("kept.append({number}); sum(kept), kept\n"));
        let kept: Vec<u32> = (40..=number).collect();
        let sum: u32 = kept.iter().sum();
        terminal.wait_for(&format!("\r\n({sum}, {kept:?})\r\n>>> "));
    }
    // The end of input, as a terminal says it.
    terminal.type_in("\u{4}");
    let _ = running.wait().expect(0);
}

#[test]
fn ctrl_c_typed_at_the_prompt_stops_the_interpreter_for_another_terminal() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open();
    // A session of its own, whose terminal this is: so that the key reaches it as a signal.
    let session = sandbox
        .command("setsid")
        .args(["--ctty", "--wait"])
        .arg(binary());
    let running = terminal.connect(python(session));
    terminal.wait_for(">>> ");
    terminal.type_in("twice = lambda x: 2 * x\n");
    terminal.wait_for("2 * x\r\n>>> ");
    terminal.type_in("\u{3}");
    let _ = running.wait().expect(SUSPENDED);
    let mut terminal = Terminal::open();
    let resume = sandbox.wsnap().arg("resume").arg(image(&sandbox));
    let running = terminal.connect(resume);
    terminal.type_in("twice(21)\n");
    terminal.wait_for("\r\n42\r\n>>> ");
    terminal.type_in("\u{4}");
    let _ = running.wait().expect(0);
}

#[test]
fn a_statement_typed_half_is_completed_at_another_terminal() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open();
    let mut running = terminal.connect(python(sandbox.wsnap()));
    terminal.wait_for(">>> ");
    // A compound statement is not complete before its empty line: the interpreter holds the first lines of it.
    terminal.type_in("for i in range(3):\n");
    terminal.wait_for("... ");
    running.signal(Signal::TERM);
    let _ = running.wait().expect(SUSPENDED);
    let mut terminal = Terminal::open();
    let resume = sandbox.wsnap().arg("resume").arg(image(&sandbox));
    let running = terminal.connect(resume);
    terminal.type_in("  print(i * 'ab')\n\n");
    terminal.wait_for("\r\nab\r\nabab\r\n>>> ");
    terminal.type_in("\u{4}");
    let _ = running.wait().expect(0);
}
