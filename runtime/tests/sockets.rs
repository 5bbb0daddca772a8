//! Programs with connections, stopped and going on in place.

#[allow(dead_code, reason = "shared with tests that use all of it")]
mod common;

use common::{Output, plain_engine};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use wsnap::snapshots::{Store, Value};
use wsnap::wasi::{Errno, Grants, SavedState, Wasi, WasiConfig};
use wsnap::{Call, Outcome, Program, StopReason, WASI_SECTION};

/// Accepts a connection on descriptor 3, receives exactly 1000 bytes in one call, sends 1 MiB, and returns the error
/// number of receiving, the number of bytes received and a sum over them.
const GUEST: &str = r#"(module
  (import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_recv"
    (func $recv (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 32)
  (func (export "run") (result i32 i32 i64)
    (local $error i32) (local $at i32) (local $sum i64) (local $left i32)
    (if (call $accept (i32.const 3) (i32.const 0) (i32.const 16)) (then (unreachable)))
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (i32.const 1000))
    (local.set $error
      (call $recv (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 2) (i32.const 8)
        (i32.const 12)))
    (loop $next
      (local.set $sum
        (i64.add (i64.mul (local.get $sum) (i64.const 31))
          (i64.load8_u offset=1024 (local.get $at))))
      (br_if $next
        (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (i32.const 1000))))
    (local.set $left (i32.const 1048576))
    (block $done
      (loop $more
        (i32.store (i32.const 0) (i32.const 65536))
        (i32.store (i32.const 4) (local.get $left))
        (br_if $done (call $write (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 20)))
        (br_if $more
          (local.tee $left (i32.sub (local.get $left) (i32.load (i32.const 20)))))))
    (local.get $error) (i32.load (i32.const 8)) (local.get $sum)))"#;

const MOMENT: Duration = Duration::from_millis(30);

fn program() -> Program {
    Program::new(&plain_engine(None), GUEST.into()).expect("it compiles")
}

fn call() -> Call {
    Call {
        export: "run".into(),
        arguments: Vec::new(),
    }
}

fn listener() -> (TcpListener, Vec<TcpListener>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let granted = listener.try_clone().expect("a descriptor is free");
    (listener, vec![granted])
}

fn config(listeners: Vec<TcpListener>) -> WasiConfig {
    WasiConfig {
        streams: Output::new().streams(),
        listeners,
        ..WasiConfig::default()
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum: u64, byte| {
        sum.wrapping_mul(31).wrapping_add((*byte).into())
    })
}

#[test]
fn a_connection_survives_stops_and_snapshots_of_a_program_that_goes_on_in_place() {
    let (listener, granted) = listener();
    let wasi = Wasi::new(config(granted)).expect("the host state can be set up");
    let mut instance = program().start(wasi, call()).expect("the program starts");
    let message: Vec<u8> = (0..1000u32).map(|number| (number % 251) as u8).collect();
    let handle = instance.handle();
    let peer = {
        let message = message.clone();
        std::thread::spawn(move || {
            std::thread::sleep(MOMENT);
            let address = listener.local_addr().expect("it is bound");
            let mut stream = TcpStream::connect(address).expect("it listens");
            let patience = Some(Duration::from_secs(60));
            stream.set_read_timeout(patience).expect("a valid time");
            for (turn, piece) in message.chunks(100).enumerate() {
                stream.write_all(piece).expect("it is connected");
                std::thread::sleep(Duration::from_millis(3));
                match turn % 3 {
                    0 => handle.request_stop(),
                    1 => drop(handle.snapshot().expect("a snapshot can be taken")),
                    _ => {}
                }
            }
            let mut received = vec![1; 1 << 20];
            for piece in received.chunks_mut(1 << 18) {
                stream.read_exact(piece).expect("it is sent");
                handle.request_stop();
            }
            assert!(received.iter().all(|byte| *byte == 0), "all of it is zero");
        })
    };
    let mut stops = 0;
    let returned = loop {
        match instance.run().expect("the program runs") {
            Outcome::Suspended(reason) => {
                assert_eq!(reason, StopReason::Requested);
                stops += 1;
            }
            Outcome::Returned(values) => break values,
            other => panic!("{other:?}"),
        }
    };
    assert!(stops > 0, "it was never stopped");
    let expected = [
        Value::I32(0),
        Value::I32(1000),
        Value::I64(sum(&message) as i64),
    ];
    assert_eq!(returned, expected);
    peer.join().expect("no panic");
}

#[test]
fn a_program_that_is_resumed_while_it_receives_finds_the_connection_reset() {
    let (listener, granted) = listener();
    let wasi = Wasi::new(config(granted)).expect("the host state can be set up");
    let program = program();
    let mut instance = program.start(wasi, call()).expect("the program starts");
    let handle = instance.handle();
    let address = listener.local_addr().expect("it is bound");
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream
        .write_all(b"less than it waits for")
        .expect("it is connected");
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(MOMENT);
        handle.request_stop();
    });
    match instance.run().expect("the program runs") {
        Outcome::Suspended(StopReason::Requested) => {}
        other => panic!("{other:?}"),
    }
    stopper.join().expect("no panic");
    let directory = tempfile::tempdir().expect("there is room for a store");
    let store = Store::open(directory.path().join("store")).expect("a store can be made");
    let id = instance
        .snapshot()
        .expect("it can be stored")
        .store(&store)
        .expect("the store takes it");
    drop(instance);

    let image = Arc::new(store.load(id).expect("the image is there"));
    image.verify().expect("the image is intact");
    let state = SavedState::decode(&image.manifest().host[WASI_SECTION]).expect("it can be read");
    let grants = Grants {
        streams: Output::new().streams(),
        listeners: vec![listener],
        ..Grants::default()
    };
    let wasi = Wasi::restore(&state, grants).expect("the socket is granted");
    let mut instance = program.resume(&image, wasi).expect("it goes on");
    match instance.run().expect("the program runs") {
        Outcome::Returned(values) => {
            assert_eq!(values[0], Value::I32(Errno::Connreset.raw() as i32));
        }
        other => panic!("{other:?}"),
    }
}
