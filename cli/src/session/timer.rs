//! What is to happen when time has passed: `--stop-at after=…`, `--timeout` and `--cpu-timeout`.

use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use super::requests::{Request, Requests, StopCause};

/// Asks for a stop when `delay` has passed, from a thread of its own.
pub(crate) fn start(delay: Duration, cause: StopCause, requests: Requests) -> io::Result<()> {
    let wait = move || {
        thread::sleep(delay);
        requests.push(Request::stop(cause));
    };
    thread::Builder::new()
        .name("timer".to_owned())
        .spawn(wait)?;
    Ok(())
}

/// Asks for a stop when the thread that calls this, which will run the program, has used so much processor time from now on.
pub(crate) fn start_processor(
    limit: Duration,
    cause: StopCause,
    requests: Requests,
) -> io::Result<()> {
    let thread = rustix::thread::gettid().as_raw_nonzero();
    let used = move || processor_time(thread.get());
    let end = used()?.saturating_add(limit);
    let wait = move || {
        // A thread uses no more processor time than time passes, so nobody need look before that. One that has ended does
        // not matter any more.
        while let Ok(left) = used().map(|used| end.saturating_sub(used)) {
            if left.is_zero() {
                requests.push(Request::stop(cause));
                return;
            }
            thread::sleep(left);
        }
    };
    thread::Builder::new()
        .name("processor timer".to_owned())
        .spawn(wait)?;
    Ok(())
}

/// How long a processor has worked for a thread of this process.
fn processor_time(thread: i32) -> io::Result<Duration> {
    // The first of three numbers: nanoseconds on a processor (Linux, `proc(5)`).
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"))?;
    let nanoseconds = text
        .split_whitespace()
        .next()
        .and_then(|first| first.parse().ok());
    let nanoseconds = nanoseconds.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Duration::from_nanos(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn processor_time_passes_while_a_thread_works_and_not_while_it_sleeps() {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let used = || processor_time(thread).expect("the system tells");
        let before = used();
        thread::sleep(Duration::from_millis(50));
        let slept = used();
        let start = Instant::now();
        while used() < slept + Duration::from_millis(20) {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "it has worked all the time"
            );
        }
        // Sleeping takes next to nothing, whatever else the machine does.
        assert!(slept - before < Duration::from_millis(40));
    }
}
