//! The protocol between `wsnap snap` and a running program: over its socket, one line of JSON each way.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::requests::{Request, Requests};
use crate::failure::Failure;

/// The longest line either side reads, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Whoever connects says at once what they want, and takes the answer at once.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Waits before accepting again when there are no descriptors left.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What a client asks for: an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ask {
    /// The program is not to go on after it.
    pub stop: bool,
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
    },
    /// There is no image.
    Refused {
        /// Why.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl Answer {
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
pub(crate) fn serve(listener: UnixListener, requests: Requests) -> io::Result<()> {
    let accept = move || {
        for client in listener.incoming() {
            let Ok(client) = client else {
                thread::sleep(RETRY_PAUSE);
                continue;
            };
            let requests = requests.clone();
            // One that says nothing must not keep others waiting. Without a thread for it, it sees the end of file.
            let _ = thread::Builder::new()
                .name("client".to_owned())
                .spawn(move || listen(client, &requests));
        }
    };
    thread::Builder::new()
        .name("control".to_owned())
        .spawn(accept)?;
    Ok(())
}

/// Puts what the client asks for into the queue. Whoever only looks whether the program is alive asks nothing.
fn listen(client: UnixStream, requests: &Requests) {
    let asked = client
        .set_read_timeout(Some(CLIENT_TIMEOUT))
        .and_then(|()| client.set_write_timeout(Some(CLIENT_TIMEOUT)))
        .and_then(|()| receive::<Ask>(&client));
    if let Ok(Some(ask)) = asked {
        requests.push(Request::snapshot(Client(client), ask.stop));
    }
}

/// Asks a program and waits for its answer; none when it ended before.
pub(crate) fn ask(mut program: UnixStream, ask: Ask) -> io::Result<Option<Answer>> {
    match send(&mut program, &ask).and_then(|()| receive(&program)) {
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
        };
        send(&mut program, &answer).expect("sent");
        let asked = ask(client, Ask { stop: true }).expect("answered");
        assert_eq!(asked, Some(answer));
        let received: Option<Ask> = receive(&program).expect("a line");
        assert_eq!(received, Some(Ask { stop: true }));
    }

    #[test]
    fn a_program_that_ends_before_it_answers_gives_no_answer() {
        let (program, client) = UnixStream::pair().expect("a pair of sockets");
        drop(program);
        let asked = ask(client, Ask { stop: false }).expect("no error");
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
