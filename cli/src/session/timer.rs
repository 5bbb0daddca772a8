//! `--stop-at after=…`.

use std::io;
use std::thread;
use std::time::Duration;

use super::requests::{Request, Requests, StopCause};

/// Asks for a suspension when `delay` has passed, from a thread of its own.
pub(crate) fn start(delay: Duration, requests: Requests) -> io::Result<()> {
    let wait = move || {
        thread::sleep(delay);
        requests.push(Request::stop(StopCause::Time));
    };
    thread::Builder::new()
        .name("timer".to_owned())
        .spawn(wait)?;
    Ok(())
}
