//! The protocol between `wsnap snap` and a running program: over its socket, one line of JSON each way.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use wsnap::snapshots::Store;
use wsnap::{Error, Handle};

use super::keeper::{Keeper, Taken};
use super::requests::{Awaited, Request, Requests};
use crate::failure::Failure;
use crate::output;

/// The longest line either side reads, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Whoever connects says at once what they want, and takes the answer at once.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Waits before accepting again when there are no descriptors left.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What the record of a snapshot that a client asked for says.
pub(crate) const SNAP_TRIGGER: &str = "snap";

/// What a client asks for: an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ask {
    /// The program is not to go on after it.
    pub stop: bool,
    /// What is to be kept with its record.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// An image has been stored.
    Image {
        /// Its id.
        id: String,
        /// How long it took until the program's state was captured.
        taken_ms: u64,
        /// How long it took until the image was safe on the disk.
        durable_ms: u64,
        /// How long the program stood still, in microseconds, if it goes on.
        pause_us: u64,
    },
    /// The program does not run, and nothing has come of it that an image could hold: it starts from the beginning.
    NotBegun,
    /// There is no image.
    Refused {
        /// Why.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl Answer {
    /// There is an image.
    pub fn image(taken: &Taken) -> Self {
        Self::Image {
            id: taken.id.to_string(),
            taken_ms: output::milliseconds(taken.taken),
            durable_ms: output::milliseconds(taken.durable),
            pause_us: u64::try_from(taken.pause.as_micros()).unwrap_or(u64::MAX),
        }
    }

    /// There is no image because of a failure.
    pub fn refusal(failure: &Failure) -> Self {
        Self::Refused {
            message: failure.message().to_owned(),
            hint: failure.hint_text().map(str::to_owned),
        }
    }
}

/// A client that waits for its answer.
pub(crate) struct Client(UnixStream);

impl Client {
    /// Sends the answer; a client that has gone or doesn't listen is not waited for.
    pub fn answer(mut self, answer: &Answer) {
        let _ = send(&mut self.0, answer);
    }
}

/// Answers clients from now on, on a thread of its own.
pub(crate) fn serve(listener: UnixListener, desk: Desk) -> io::Result<()> {
    let desk = Arc::new(desk);
    let accept = move || {
        for client in listener.incoming() {
            let Ok(client) = client else {
                thread::sleep(RETRY_PAUSE);
                continue;
            };
            let desk = desk.clone();
            // One that says nothing must not keep others waiting. Without a thread for it, it sees the end of file.
            let _ = thread::Builder::new()
                .name("client".to_owned())
                .spawn(move || desk.listen(client));
        }
    };
    thread::Builder::new()
        .name("control".to_owned())
        .spawn(accept)?;
    Ok(())
}

/// What clients need of the program.
pub(crate) struct Desk {
    pub keeper: Arc<Keeper>,
    pub store: Store,
    pub requests: Requests,
}

impl Desk {
    /// Does what the client asks for. Whoever only looks whether the program is alive asks nothing.
    fn listen(&self, client: UnixStream) {
        let asked = client
            .set_read_timeout(Some(CLIENT_TIMEOUT))
            .and_then(|()| client.set_write_timeout(Some(CLIENT_TIMEOUT)))
            .and_then(|()| receive::<Ask>(&client));
        let Ok(Some(ask)) = asked else { return };
        let client = Client(client);
        if ask.stop {
            self.requests.push(Request::stop_for(client, ask.labels));
            return;
        }
        let _waiting = self.keeper.client();
        // Without an answer the client sees that the program has ended.
        if let Some(answer) = self.snapshot(&ask.labels) {
            client.answer(&answer);
        }
    }

    fn snapshot(&self, labels: &BTreeMap<String, String>) -> Option<Answer> {
        let since = Instant::now();
        loop {
            let snapping = self.keeper.snapping();
            if let Some(handle) = self.requests.program() {
                return self.snapshot_of(&handle, since, labels);
            }
            drop(snapping);
            match self.requests.await_program() {
                Awaited::Program => (),
                Awaited::Waiting => {
                    // It does not run at the moment, and this is what it goes on from.
                    let latest = self.keeper.latest();
                    return Some(latest.map_or(Answer::NotBegun, |latest| Answer::image(&latest)));
                }
                Awaited::Unstored => {
                    return Some(Answer::refusal(&Failure::new(
                        "the program waits for its turn, and its state could not be stored",
                    )));
                }
                Awaited::Over => return None,
            }
        }
    }

    fn snapshot_of(
        &self,
        handle: &Handle,
        since: Instant,
        labels: &BTreeMap<String, String>,
    ) -> Option<Answer> {
        let taken = match handle.snapshot() {
            Ok(snapshot) => self
                .keeper
                .keep(&self.store, &snapshot, since, SNAP_TRIGGER, labels),
            // It may have been suspended for good just now, and that image will do.
            Err(Error::Ended) => {
                return self.keeper.latest_since(since).as_ref().map(Answer::image);
            }
            Err(error) => Err(error.into()),
        };
        Some(match taken {
            Ok(taken) => Answer::image(&taken),
            Err(failure) => Answer::refusal(&failure),
        })
    }
}

/// Asks a program and waits for its answer; none when it ended before.
pub(crate) fn ask(mut program: UnixStream, ask: &Ask) -> io::Result<Option<Answer>> {
    match send(&mut program, ask).and_then(|()| receive(&program)) {
        Err(error) if is_hang_up(&error) => Ok(None),
        answer => answer,
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

fn send(to: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// The next message; none at the end of the stream.
fn receive<T: for<'a> Deserialize<'a>>(from: &UnixStream) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    BufReader::new(from.take(LINE_BYTES_MAX)).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_sends_the_other_receives() {
        let (mut program, client) = UnixStream::pair().expect("a pair of sockets");
        let answer = Answer::Image {
            id: "3f".repeat(32),
            taken_ms: 1,
            durable_ms: 20,
            pause_us: 300,
        };
        send(&mut program, &answer).expect("sent");
        let question = Ask {
            stop: true,
            labels: [("why".to_owned(), "upgrade".to_owned())].into(),
        };
        let asked = ask(client, &question).expect("answered");
        assert_eq!(asked, Some(answer));
        let received: Option<Ask> = receive(&program).expect("a line");
        assert_eq!(received, Some(question));
    }

    #[test]
    fn a_program_that_ends_before_it_answers_gives_no_answer() {
        let (program, client) = UnixStream::pair().expect("a pair of sockets");
        drop(program);
        let question = Ask {
            stop: false,
            labels: BTreeMap::new(),
        };
        let asked = ask(client, &question).expect("no error");
        assert_eq!(asked, None);
    }

    #[test]
    fn a_line_that_is_no_message_is_an_error() {
        let (mut program, client) = UnixStream::pair().expect("a pair of sockets");
        program
            .write_all(b"{\"stop\": \"perhaps\"}\n")
            .expect("sent");
        match receive::<Ask>(&client) {
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidData),
            Ok(message) => panic!("{message:?}"),
        }
    }
}
