//! What must come to an end: it is told to stop after a while, and if it goes on for long then, the process ends.

use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};
use wsnap::Handle;

/// A program runs for so long before it is told to stop.
const RUNS: Duration = Duration::from_millis(100);
/// Nothing takes so long, on however busy a machine.
const HANGS: Duration = Duration::from_secs(120);
const LOOKS_EVERY: Duration = Duration::from_millis(20);

static CURRENT: Mutex<Option<(Instant, Option<Handle>)>> = Mutex::new(None);

fn set(current: Option<(Instant, Option<Handle>)>) {
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = current;
}

fn look() {
    let current = CURRENT
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let Some((since, handle)) = current else {
        return;
    };
    if since.elapsed() > HANGS {
        eprintln!("it goes on for ever");
        std::process::abort();
    }
    if let Some(handle) = handle.filter(|_| since.elapsed() > RUNS) {
        handle.request_stop();
    }
}

/// Does something that must end by itself or, with a handle, when it is told to.
pub fn watched<T>(handle: Option<Handle>, work: impl FnOnce() -> T) -> T {
    static WATCHER: Once = Once::new();
    WATCHER.call_once(|| {
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(LOOKS_EVERY);
                look();
            }
        });
    });
    set(Some((Instant::now(), handle)));
    let result = work();
    set(None);
    result
}
