//! `--grace`: the last image must not take longer than whoever sent the signal is willing to wait.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::keeper::Keeper;
use crate::output;

/// How long the last image may take after the first signal.
pub(crate) struct Grace {
    time: Option<Duration>,
    keeper: Arc<Keeper>,
    code: u8,
    /// While the time runs. Nothing is ever sent: that it is dropped says that it does not matter any more.
    running: Mutex<Option<Sender<Infallible>>>,
}

impl Grace {
    /// When the time is over, this process ends with `code` if there is an earlier image to go on from. Without one the
    /// image is waited for, whatever comes.
    pub fn new(time: Option<Duration>, keeper: Arc<Keeper>, code: u8) -> Self {
        Self {
            time,
            keeper,
            code,
            running: Mutex::default(),
        }
    }

    /// A signal has come: the time runs from now on, unless it does already.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        let Some(time) = self.time else {
            return Ok(());
        };
        let mut running = self.running();
        if running.is_some() {
            return Ok(());
        }
        let (over, is_over) = mpsc::channel();
        let grace = self.clone();
        thread::Builder::new()
            .name("grace".to_owned())
            .spawn(move || grace.watch(time, &is_over))?;
        *running = Some(over);
        Ok(())
    }

    /// The program has no image and goes on.
    pub fn cancel(&self) {
        *self.running() = None;
    }

    fn watch(&self, time: Duration, is_over: &Receiver<Infallible>) {
        if is_over.recv_timeout(time) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        if self.keeper.kept().latest_record().is_none() {
            return;
        }
        output::message(format_args!(
            "the last image was not stored within {} (--grace): the program goes on from the one before",
            output::duration(time)
        ));
        std::process::exit(self.code.into());
    }

    fn running(&self) -> MutexGuard<'_, Option<Sender<Infallible>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
