//! Programs that listen on sockets.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::sandbox::{Running, Sandbox, until};
use rustix::process::Signal;
use serde_json::Value;

const SUSPENDED: i32 = 85;

/// Accepts connections on descriptor 3, one after the other, and sends back what comes, until the other side ends its
/// half or the connection is gone. Each end is told on standard output: `.` for an orderly one, `!` for a reset.
const ECHO: &str = r#"(module
  (import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_recv"
    (func $recv (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_send" (func $send (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) ".!")
  (func $tell (param $place i32)
    (i32.store (i32.const 0) (local.get $place))
    (i32.store (i32.const 4) (i32.const 1))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func $serve (param $connection i32)
    (local $error i32) (local $length i32)
    (loop $more
      (i32.store (i32.const 0) (i32.const 1024))
      (i32.store (i32.const 4) (i32.const 1024))
      (local.set $error
        (call $recv (local.get $connection) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 8)
          (i32.const 12)))
      (if (i32.eq (local.get $error) (i32.const 15)) (then (call $tell (i32.const 65)) (return)))
      (if (local.get $error) (then (unreachable)))
      (local.set $length (i32.load (i32.const 8)))
      (if (i32.eqz (local.get $length)) (then (call $tell (i32.const 64)) (return)))
      (i32.store (i32.const 4) (local.get $length))
      (if (call $send (local.get $connection) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 8))
        (then (unreachable)))
      (br $more)))
  (func (export "_start")
    (loop $again
      (if (call $accept (i32.const 3) (i32.const 0) (i32.const 16)) (then (unreachable)))
      (call $serve (i32.load (i32.const 16)))
      (drop (call $close (i32.load (i32.const 16))))
      (br $again))))"#;

/// Starts wsnap on any free port and returns the address that it tells.
fn start(sandbox: &Sandbox, arguments: &[&str]) -> (Running, SocketAddr) {
    let create = |name| File::create(sandbox.path(name)).expect("a file for output");
    let mut command = sandbox.command(arguments);
    command.stdout(create("stdout")).stderr(create("stderr"));
    let running = Running(command.spawn().expect("the binary starts"));
    let mut address = None;
    until("it tells where it listens", || {
        let stderr = read(sandbox, "stderr");
        let line = stderr
            .lines()
            .find_map(|line| line.split("listening on ").nth(1));
        // The line may still be on its way.
        address = line
            .filter(|_| stderr.ends_with('\n'))
            .and_then(|line| line.trim().parse().ok());
        address.is_some()
    });
    (running, address.expect("it was told"))
}

fn read(sandbox: &Sandbox, name: &str) -> String {
    std::fs::read_to_string(sandbox.path(name)).expect("a file of the sandbox")
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the program listens");
    let patience = Some(Duration::from_secs(60));
    stream.set_read_timeout(patience).expect("a valid time");
    stream
}

#[track_caller]
fn echoes(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).expect("it is connected");
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).expect("it comes back");
    assert_eq!(back, text);
}

fn told(sandbox: &Sandbox, text: &str) {
    until("the program tells how connections ended", || {
        read(sandbox, "stdout") == text
    });
}

#[test]
fn a_server_that_waits_for_connections_is_stopped_and_goes_on_serving() {
    let sandbox = Sandbox::new();
    sandbox.write("echo.wat", ECHO);
    let listen = ["--tcplisten", "127.0.0.1:0"];
    let arguments = [&["run"], &listen[..], &["--name", "echo", "echo.wat"]].concat();
    let (mut running, address) = start(&sandbox, &arguments);
    let mut stream = connect(address);
    echoes(&mut stream, b"before");
    drop(stream);
    told(&sandbox, ".");
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), Some(SUSPENDED));
    let stderr = read(&sandbox, "stderr");
    let resume = "wsnap resume --tcplisten 127.0.0.1:0 echo";
    assert!(stderr.contains(resume), "{stderr}");
    let (stdout, _) = sandbox.expect(0, &["inspect", "--json", "echo"]);
    let report: Value = serde_json::from_str(&stdout).expect("a report in JSON");
    let descriptors = &report["wasi"]["descriptors"];
    assert_eq!(descriptors[3]["kind"], "listener 1", "{descriptors}");

    let arguments = [&["resume"], &listen[..], &["echo"]].concat();
    let (mut running, address) = start(&sandbox, &arguments);
    let mut stream = connect(address);
    echoes(&mut stream, b"after");
    drop(stream);
    told(&sandbox, ".");
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), Some(SUSPENDED));
}

#[test]
fn a_server_that_is_stopped_inside_a_connection_finds_it_reset_and_serves_the_next() {
    let sandbox = Sandbox::new();
    sandbox.write("echo.wat", ECHO);
    let listen = ["--tcplisten", "127.0.0.1:0"];
    let arguments = [&["run"], &listen[..], &["--name", "echo", "echo.wat"]].concat();
    let (mut running, address) = start(&sandbox, &arguments);
    let mut stream = connect(address);
    echoes(&mut stream, b"before");
    // A snapshot in passing does not disturb the connection.
    sandbox.expect(0, &["snap", "echo"]);
    echoes(&mut stream, b"between");
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), Some(SUSPENDED));
    // Its process is gone, and the connection with it.
    assert_eq!(stream.read(&mut [0; 9]).unwrap_or(0), 0);
    let (stdout, _) = sandbox.expect(0, &["inspect", "echo"]);
    assert!(stdout.contains("connection"), "{stdout}");

    let arguments = [&["resume"], &listen[..], &["echo"]].concat();
    let (_running, address) = start(&sandbox, &arguments);
    told(&sandbox, "!");
    let mut stream = connect(address);
    echoes(&mut stream, b"after");
}

#[test]
fn a_server_cannot_go_on_without_its_socket_and_the_message_names_the_flag() {
    let sandbox = Sandbox::new();
    sandbox.write("echo.wat", ECHO);
    let arguments = [
        "run",
        "--tcplisten",
        "127.0.0.1:0",
        "--name",
        "echo",
        "echo.wat",
    ];
    let (mut running, address) = start(&sandbox, &arguments);
    echoes(&mut connect(address), b"here");
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), Some(SUSPENDED));
    let (_, stderr) = sandbox.expect(1, &["resume", "echo"]);
    assert!(stderr.contains("--tcplisten HOST:PORT"), "{stderr}");
}

#[test]
fn an_address_that_cannot_be_listened_on_is_named() {
    let sandbox = Sandbox::new();
    sandbox.write("echo.wat", ECHO);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let (_, stderr) = sandbox.expect(1, &["run", "--tcplisten", &address, "echo.wat"]);
    assert!(
        stderr.contains(&format!("cannot listen on {address}")),
        "{stderr}"
    );
    let (_, stderr) = sandbox.expect(2, &["run", "--tcplisten", "8080", "echo.wat"]);
    assert!(stderr.contains("HOST:PORT"), "{stderr}");
}

#[test]
fn a_server_that_is_stopped_as_soon_as_it_tells_where_it_listens_is_suspended() {
    let sandbox = Sandbox::new();
    sandbox.write("echo.wat", ECHO);
    let arguments = ["run", "--tcplisten", "127.0.0.1:0", "echo.wat"];
    for _ in 0..5 {
        let (mut running, _) = start(&sandbox, &arguments);
        running.signal(Signal::TERM);
        assert_eq!(running.wait(), Some(SUSPENDED));
    }
}
