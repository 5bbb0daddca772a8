//! Programs that wait for input are stopped while they wait, and lose and repeat nothing of it.

use std::fs::{self, File};
use std::io::Write;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use wsnap_tests::guests::run;
use wsnap_tests::wsnap::{Running, SUSPENDED, Sandbox, Wsnap};

fn dialogue(sandbox: &Sandbox, options: &[&str]) -> Wsnap {
    let module = run("dialogue")
        .module_path()
        .unwrap_or_else(|error| panic!("{error}"));
    sandbox
        .wsnap()
        .arg("run")
        .args(options)
        .arg("--id-file")
        .arg(sandbox.path("id"))
        .arg(module)
}

fn image(sandbox: &Sandbox) -> String {
    fs::read_to_string(sandbox.path("id"))
        .expect("the id file was written")
        .trim()
        .to_string()
}

fn say(running: &mut Running, text: &str) -> std::process::ChildStdin {
    let mut pipe = running.take_stdin().expect("standard input is a pipe");
    pipe.write_all(text.as_bytes()).expect("the program reads");
    pipe
}

fn resume_with(sandbox: &Sandbox, input: &str) -> String {
    let input = File::open(sandbox.write("rest", input)).expect("the file just written");
    sandbox
        .wsnap()
        .args(["resume", &image(sandbox)])
        .stdin(input)
        .run()
        .expect(7)
        .text()
}

#[test]
fn a_program_stopped_before_it_would_block_on_input_goes_on_with_new_input() {
    let sandbox = Sandbox::new();
    let mut running = dialogue(&sandbox, &["--stop-at", "stdin"])
        .stdin(Stdio::piped())
        .start();
    let open = say(&mut running, "5\nhello world\n");
    let stopped = running.wait().expect(SUSPENDED);
    drop(open);
    assert_eq!(stopped.text(), "1: added 5\n2: 2 words known\n");
    assert_eq!(
        resume_with(&sandbox, "total\nwords\nbye\n"),
        "3: total 5\n4: hello world\n5: goodbye\n"
    );
}

#[test]
fn sigterm_interrupts_a_blocked_read() {
    let sandbox = Sandbox::new();
    let mut running = dialogue(&sandbox, &[]).stdin(Stdio::piped()).start();
    let open = say(&mut running, "40\n2\n");
    running.wait_for("answered", |stdout| stdout.ends_with(b"2: added 2\n"));
    // Gives the program time to block in its next read; stopping it before that must work as well.
    thread::sleep(Duration::from_millis(20));
    running.signal(Signal::TERM);
    let stopped = running.wait().expect(SUSPENDED);
    drop(open);
    assert_eq!(stopped.text(), "1: added 40\n2: added 2\n");
    assert_eq!(
        resume_with(&sandbox, "total\nbye\n"),
        "3: total 42\n4: goodbye\n"
    );
}

#[test]
fn input_that_ends_at_once_after_resume_is_seen_as_its_end() {
    let sandbox = Sandbox::new();
    let mut running = dialogue(&sandbox, &["--stop-at", "stdin"])
        .stdin(Stdio::piped())
        .start();
    let open = say(&mut running, "5\n");
    let _ = running.wait().expect(SUSPENDED);
    drop(open);
    let resumed = sandbox
        .wsnap()
        .args(["resume", &image(&sandbox)])
        .run()
        .expect(0);
    assert_eq!(resumed.text(), "end of input, total 5, 0 words\n");
}
