//! What a signal may take: the last image no longer than `--grace`, and nothing at all while there is nothing to store.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use wsnap::snapshots::Store;
use wsnap_supervision::Job;

use super::keeper::Keeper;
use crate::failure::Failure;
use crate::output;

/// What is said of a program that is stopped before it runs.
pub(crate) const NOTHING_COMPUTED: &str =
    "stopped before the program ran: nothing has been computed since";

/// Writing the journal may take so long at the end of the grace.
const ABANDON_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the last image may take after the first signal.
pub(crate) struct Grace {
    time: Option<Duration>,
    keeper: Arc<Keeper>,
    code: u8,
    /// While the time runs. Nothing is ever sent: that it is dropped says that it does not matter any more.
    running: Mutex<Option<Sender<Infallible>>>,
    /// The program has come to its end.
    is_over: AtomicBool,
    /// Where the program's journal is, if it has one.
    journal: OnceLock<(Store, String)>,
    /// Whether the program is made ready to run, and nothing has been computed since its image.
    preparing: Mutex<bool>,
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
            is_over: AtomicBool::new(false),
            journal: OnceLock::new(),
            preparing: Mutex::new(false),
        }
    }

    /// The program's journal is there, under its name.
    pub fn set_journal(&self, store: Store, name: String) {
        // A session is for one program.
        let _ = self.journal.set((store, name));
    }

    /// The program is made ready to run, which can take long, or is so now.
    pub fn set_preparing(&self, preparing: bool) {
        *self.lock_preparing() = preparing;
    }

    /// A signal has come: ends this process if there is nothing to store. Nothing that compiles can be told to stop.
    pub fn end_if_preparing(&self) {
        // Held so that the program does not begin to run meanwhile.
        let preparing = self.lock_preparing();
        if *preparing {
            output::message(NOTHING_COMPUTED);
            std::process::exit(self.code.into());
        }
    }

    /// A signal has come: the time runs from now on, unless it does already.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        let Some(time) = self.time else {
            return Ok(());
        };
        let mut running = self.running();
        if running.is_some() || self.is_over.load(Ordering::SeqCst) {
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

    /// The image is stored, or cannot be and the program goes on.
    pub fn cancel(&self) {
        *self.running() = None;
    }

    /// The program has come to its end, and there is nothing to store.
    pub fn end(&self) {
        let mut running = self.running();
        self.is_over.store(true, Ordering::SeqCst);
        *running = None;
    }

    /// The program begins again.
    pub fn begin(&self) {
        self.is_over.store(false, Ordering::SeqCst);
    }

    fn watch(&self, time: Duration, is_over: &Receiver<Infallible>) {
        if is_over.recv_timeout(time) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        if self.keeper.kept().latest_record().is_none() {
            return;
        }
        // Held until this process ends, so that nobody says later that the image is stored.
        let _running = self.running();
        if is_over.try_recv() != Err(TryRecvError::Empty) {
            return;
        }
        self.abandon();
        output::message(format_args!(
            "the last image was not stored within {} (--grace): the program goes on from the one before",
            output::duration(time)
        ));
        std::process::exit(self.code.into());
    }

    /// Notes that this process ends by its own choice. Where the store is busy that is not waited for long: the attempt then counts
    /// as one that was killed, which tells against nothing before the third.
    fn abandon(&self) {
        let Some((store, name)) = self.journal.get().cloned() else {
            return;
        };
        let (done, is_done) = mpsc::channel();
        let write = move || {
            // Nobody listens if it took too long.
            let _ = done.send(Job::abandon(&store, &name));
        };
        let thread = thread::Builder::new()
            .name("abandon".to_owned())
            .spawn(write);
        if thread.is_ok()
            && let Ok(Err(error)) = is_done.recv_timeout(ABANDON_TIMEOUT)
        {
            Failure::from(error).print();
        }
    }

    fn lock_preparing(&self) -> MutexGuard<'_, bool> {
        self.preparing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, Option<Sender<Infallible>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
