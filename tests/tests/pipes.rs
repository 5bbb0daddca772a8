//! `producer | wsnap run … | consumer`: a pipeline loses and repeats no byte, however often its middle is stopped and
//! resumed.

use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use rustix::process::Signal;
use wsnap_tests::examples_dir;
use wsnap_tests::wsnap::{Running, SUSPENDED, Sandbox};

/// More than an empty pipe takes, so that whoever reads this much has some of it from the process that runs now.
const PORTION_BYTES: usize = 150_000;
const STOPS: usize = 12;
const TOTAL_BYTES: usize = PORTION_BYTES * (STOPS + 2);

/// Every byte value, in no order.
fn data() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(17);
    (0..TOTAL_BYTES).map(|_| random.u8(..)).collect()
}

/// A pipeline whose middle is a process of `wsnap`, one after the other.
struct Pipeline {
    sandbox: Sandbox,
    input: PipeReader,
    output: PipeWriter,
    pieces: usize,
}

impl Pipeline {
    fn new(input: PipeReader, output: PipeWriter) -> Self {
        Self {
            sandbox: Sandbox::new(),
            input,
            output,
            pieces: 0,
        }
    }

    /// Starts the program, or goes on from where it was stopped.
    fn start(&mut self) -> Running {
        let id = self.sandbox.path("id");
        let command = self.sandbox.wsnap();
        let command = if self.pieces == 0 {
            let module = examples_dir().join("wat/echo.wat");
            command.args(["run", "--id-file", "id"]).arg(module)
        } else {
            let image = fs::read_to_string(&id).expect("the last piece left its image's id");
            command.args(["resume", "--id-file", "id", image.trim()])
        };
        self.pieces += 1;
        let input = self.input.try_clone().expect("a descriptor of the input");
        let output = self.output.try_clone().expect("a descriptor of the output");
        command.stdin(input).stdout(output).start()
    }

    /// Goes on to the end of the data, which the consumer sees only when nobody else has the pipe open.
    fn start_last(&mut self) -> Running {
        let running = self.start();
        (self.input, self.output) = pipe().expect("a pipe");
        running
    }

    /// Stops the process in one of two ways, by turns.
    fn stop(&self, mut running: Running) {
        if self.pieces.is_multiple_of(2) {
            running.signal(Signal::TERM);
        } else {
            let pid = running.pid().to_string();
            let snap = self.sandbox.wsnap().args(["snap", "--stop", &pid]);
            let _ = snap.run().expect(0);
        }
        let _ = running.wait().expect(SUSPENDED);
    }
}

/// What the pipeline is to make of the data.
fn expected(data: &[u8]) -> Vec<u8> {
    let sandbox = Sandbox::new();
    let input = File::open(sandbox.write("data", data)).expect("the file just written");
    let module = examples_dir().join("wat/echo.wat");
    let bare = sandbox.wsnap().args(["run", "--bare"]).arg(module);
    bare.stdin(input).run().expect(0).stdout
}

/// Not by `assert_eq`, which would print megabytes.
fn assert_same(expected: &[u8], actual: &[u8]) {
    let differs = expected.iter().zip(actual).position(|(a, b)| a != b);
    assert_eq!(differs, None, "the first byte that differs");
    assert_eq!(expected.len(), actual.len(), "the number of bytes");
}

/// Writes as many bytes as it is told to, and the rest when nobody tells it any more.
fn produce(mut pipe: PipeWriter, data: Vec<u8>, portions: Receiver<usize>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut rest = &data[..];
        for portion in portions {
            let (now, later) = rest.split_at(portion);
            pipe.write_all(now).expect("somebody reads");
            rest = later;
        }
        pipe.write_all(rest).expect("somebody reads");
    })
}

/// Reads as many bytes as it is told to and says when it has them, and the rest when nobody tells it any more.
struct Consumer {
    portions: Sender<usize>,
    read: Receiver<()>,
    thread: JoinHandle<Vec<u8>>,
}

impl Consumer {
    fn start(mut pipe: PipeReader) -> Self {
        let (portions, told) = channel();
        let (says, read) = channel();
        let thread = thread::spawn(move || {
            let mut all = Vec::new();
            for portion in told {
                let start = all.len();
                all.resize(start + portion, 0);
                pipe.read_exact(&mut all[start..]).expect("somebody writes");
                says.send(()).expect("somebody waits for it");
            }
            pipe.read_to_end(&mut all).expect("a pipe");
            all
        });
        Self {
            portions,
            read,
            thread,
        }
    }

    fn ask(&self, bytes: usize) {
        self.portions.send(bytes).expect("the consumer reads");
    }

    /// Waits until one portion that was asked for is there.
    fn wait(&self) {
        self.read.recv().expect("the consumer got it all");
    }

    fn read(&self, bytes: usize) {
        self.ask(bytes);
        self.wait();
    }

    /// All that was read, to the end of the pipe.
    fn finish(self) -> Vec<u8> {
        drop(self.portions);
        self.thread.join().expect("the consumer reads to the end")
    }
}

#[test]
fn a_program_stopped_at_a_full_pipe_loses_and_repeats_nothing() {
    let ((input, producer), (consumer, output)) =
        (pipe().expect("a pipe"), pipe().expect("a pipe"));
    let data = data();
    let expected = expected(&data);
    let (all_at_once, portions) = channel();
    drop(all_at_once);
    let producer = produce(producer, data, portions);
    let consumer = Consumer::start(consumer);
    let mut pipeline = Pipeline::new(input, output);
    for _ in 0..STOPS {
        let running = pipeline.start();
        // From here on nobody reads: the program fills the pipe and waits.
        consumer.read(PORTION_BYTES);
        pipeline.stop(running);
    }
    let running = pipeline.start_last();
    let actual = consumer.finish();
    let _ = running.wait().expect(0);
    producer.join().expect("the producer wrote everything");
    assert_same(&expected, &actual);
}

#[test]
fn a_program_stopped_at_an_empty_pipe_loses_and_repeats_nothing() {
    let ((input, producer), (consumer, output)) =
        (pipe().expect("a pipe"), pipe().expect("a pipe"));
    let data = data();
    let expected = expected(&data);
    let (tell, portions) = channel();
    let producer = produce(producer, data, portions);
    let consumer = Consumer::start(consumer);
    let mut pipeline = Pipeline::new(input, output);
    for stop in 0..STOPS {
        let running = pipeline.start();
        // Of any size, so that pieces of the data end anywhere in the program's buffer.
        let portion = 1 + (stop * 7919) % PORTION_BYTES;
        tell.send(portion).expect("the producer writes");
        consumer.read(portion);
        // The program has read all there is, and waits for more.
        pipeline.stop(running);
    }
    let running = pipeline.start_last();
    drop(tell);
    let actual = consumer.finish();
    let _ = running.wait().expect(0);
    producer.join().expect("the producer wrote everything");
    assert_same(&expected, &actual);
}

#[test]
fn a_program_stopped_while_data_flows_loses_and_repeats_nothing() {
    let ((input, producer), (consumer, output)) =
        (pipe().expect("a pipe"), pipe().expect("a pipe"));
    let data = data();
    let expected = expected(&data);
    let (all_at_once, portions) = channel();
    drop(all_at_once);
    let producer = produce(producer, data, portions);
    let consumer = Consumer::start(consumer);
    let mut pipeline = Pipeline::new(input, output);
    for _ in 0..STOPS / 3 {
        let running = pipeline.start();
        consumer.read(PORTION_BYTES);
        // Goes on reading while the program is stopped, and gets what is missing from the next process.
        consumer.ask(PORTION_BYTES / 2);
        pipeline.stop(running);
        let running = pipeline.start();
        consumer.wait();
        consumer.read(PORTION_BYTES);
        pipeline.stop(running);
    }
    let running = pipeline.start_last();
    let actual = consumer.finish();
    let _ = running.wait().expect(0);
    producer.join().expect("the producer wrote everything");
    assert_same(&expected, &actual);
}
