//! A running program: what asks it to stop, what is done with its snapshots, and how it ends.
//!
//! ```text
//!  signals ──────┐                        main thread
//!  timer ────────┼─► Requests ── stop ──► Instance::run ──► Suspended ──► snapshot ──► Keeper ──► answers ──► exit 85
//!  snap --stop ──┤                             ▲  │             ▲                         │
//!  slots ────────┘                             │  │             └── goes on if refused ◄──┤
//!                                              │  │                 or when there is room ┘
//!  snap ── Handle::snapshot ◄── in passing ────┘──┘
//!  autosave  └────────────────────────────────────────────► Keeper ──► answer
//! ```
//!
//! The program runs on the main thread. A snapshot of a program that goes on is taken and stored by the thread that asks
//! for it; whatever is to stop the program puts a request into a queue and is dealt with here, between
//! two runs of it. A snapshot that cannot be taken ends nothing: the program goes on, so that what it has computed is not
//! lost. The same holds when it cannot be written, unless a flag said where to stop: then whoever gave the flag waits for
//! an image, and gets the error instead.
//!
//! A session outlives the program: one that crashes can be tried again in the same session.

pub(crate) mod control;
pub(crate) mod ended;
pub(crate) mod options;
pub(crate) mod register;

mod attempt;
mod autosave;
mod grace;
mod id_file;
mod keeper;
mod own;
mod report;
mod requests;
mod signals;
mod slot;
mod timer;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wsnap::Instance;
use wsnap::snapshots::{ImageId, Record, Store, check_name};
use wsnap::wasi::Stdio;
use wsnap_supervision::{Job, Keeper as Kept, Origin, OutputFile};

use crate::arguments::{Directory, Label, Trigger};
use crate::failure::Failure;
use crate::limits::LimitArgs;
use crate::listen::Listen;
use crate::output;
use crate::places::{Places, check_writable};
use control::{Answer, Desk};
use ended::Ended;
use grace::{Grace, NOTHING_COMPUTED};
use keeper::Keeper;
pub(crate) use options::{Options, SavingArgs};
use register::Registration;
use requests::{Requests, StopCause};
use slot::Slot;

/// The exit code of a program that trapped: what a shell reports for `abort`.
const TRAPPED: u8 = 134;
/// ERESTART: what schedulers take for "start it again, it will go on".
const SUSPENDED: u8 = 85;

/// Everything around one running program.
pub(crate) struct Session<'a> {
    places: &'a Places,
    options: &'a Options,
    keeper: Arc<Keeper>,
    requests: Requests,
    directories: &'a [Directory],
    listeners: &'a [Listen],
    /// Where the program listens, as far as the flags do not say it.
    chosen: Vec<SocketAddr>,
    /// Opened when it is first needed, because a program that nobody stops needs none.
    store: Option<Store>,
    output: Option<OutputFile>,
    slot: Option<Slot>,
    grace: Arc<Grace>,
    /// Once the program can be found.
    watch: Option<Watch>,
    job: Option<Job>,
    /// The command line that runs the program goes on with it the next time.
    continues: bool,
}

/// That signals and clients are heard.
struct Watch {
    _registration: Option<Registration>,
}

impl<'a> Session<'a> {
    /// Prepares for a program that goes by `name`; fails early when it is sure that its snapshots could not be written.
    /// The job is the program's if it has a name: this process has it to itself. `continues` says whether whoever starts it
    /// does so again and again.
    pub fn prepare(
        places: &'a Places,
        options: &'a Options,
        name: Option<String>,
        directories: &'a [Directory],
        continues: bool,
    ) -> Result<(Self, Option<Job>), Failure> {
        let output = match &options.output {
            Some(path) => Some(
                OutputFile::open(path)
                    .map_err(|error| Failure::io("write the output to", path, &error))?,
            ),
            None => None,
        };
        let mut kept = Kept::new(name.clone(), Label::collect(&options.labels));
        if let (Some(output), Some(path)) = (&output, &options.output) {
            let again = output.try_clone();
            let again = again.map_err(|error| Failure::io("open", path, &error))?;
            kept = kept.with_output(again);
        }
        let keeper = Arc::new(Keeper::new(kept, options.id_file.clone()));
        let grace = Arc::new(Grace::new(
            options.saving.grace(continues),
            keeper.clone(),
            options.suspended_exit_code,
        ));
        let mut session = Self {
            places,
            options,
            requests: Requests::new().map_err(|error| cannot_start(&error))?,
            keeper,
            directories,
            listeners: &[],
            chosen: Vec::new(),
            store: None,
            output,
            slot: None,
            grace,
            watch: None,
            job: None,
            continues,
        };
        let job = session.check(name)?;
        if let Some(directory) = &options.slots.directory {
            session.slot = Some(Slot::open(directory, options.slots.priority)?);
        }
        Ok((session, job))
    }

    /// Fails when it is sure that snapshots could not be written.
    fn check(&mut self, name: Option<String>) -> Result<Option<Job>, Failure> {
        let options = self.options;
        let needs_store = name.is_some()
            || options.stop_at.is_some()
            || options.saving.every.is_some()
            || options.slots.directory.is_some();
        let mut job = None;
        if needs_store {
            let store = self.store()?.clone();
            check_writable(&store)?;
            if let Some(name) = name {
                check_name(&name)?;
                job = Some(Job::open(&store, &name, &register::this_process())?);
                self.grace.set_journal(store, name);
            }
        }
        if let Some(path) = &options.id_file {
            id_file::check(path)?;
        }
        Ok(job)
    }

    /// Runs the program, which came from `origin`, to its end or its suspension and says how this process is to end.
    ///
    /// `label` is what `wsnap ps` shows as the module.
    pub fn run(
        mut self,
        instance: Instance,
        origin: Origin,
        label: &str,
    ) -> Result<ExitCode, Failure> {
        // Whoever finds the program may ask it for a snapshot.
        self.requests.aim(Some(instance.handle()));
        self.watch(label)?;
        let ended = match self.await_slot()? {
            true => self.attempt(instance, origin, None)?,
            // Nothing has been computed since the program was started or resumed.
            false => self.suspended_before_it_ran(),
        };
        self.finish();
        Ok(ended.exit_code())
    }

    /// From now on the program can be found, and requests are heard: also while it does not run yet, or not at the moment.
    pub fn watch(&mut self, label: &str) -> Result<(), Failure> {
        if self.watch.is_some() {
            return Ok(());
        }
        // Signals first: whoever finds the program in the register may send one.
        let watched = signals::watch(self.requests.clone(), self.grace.clone());
        watched.map_err(|error| cannot_start(&error))?;
        Listen::announce(&self.chosen);
        self.watch = Some(Watch {
            _registration: self.register(label)?,
        });
        self.start_timers().map_err(|error| cannot_start(&error))
    }

    /// Whoever waits for a snapshot learns that there will be none.
    pub fn finish(mut self) {
        self.requests.close();
        self.watch = None;
        self.keeper.finish();
    }

    /// The program is made ready to run, or is so now: in between a signal ends this process at once.
    pub fn set_preparing(&self, preparing: bool) {
        self.grace.set_preparing(preparing);
    }

    /// Waits until the program may run, and says whether it is to.
    pub fn await_slot(&mut self) -> Result<bool, Failure> {
        match &mut self.slot {
            Some(slot) => slot.wait(&self.requests),
            None => Ok(true),
        }
    }

    /// Waits so long, without a slot, and says whether the program is still to run then.
    pub fn wait(&mut self, time: Duration) -> bool {
        if let Some(slot) = &mut self.slot {
            slot.leave();
        }
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if !self.requests.wait(left) {
                return true;
            }
            if self.requests.is_stop_wanted() {
                return false;
            }
            // Somebody wanted the slot that it had.
            self.requests.take();
        }
    }

    /// Somebody wants the program to stop before it has run at all.
    pub fn suspended_before_it_ran(&self) -> Ended {
        for request in self.requests.take() {
            request.answer(match self.keeper.latest() {
                Some(taken) => Answer::image(&taken),
                None => Answer::refusal(&Failure::new("the program does not run yet")),
            });
        }
        output::message(NOTHING_COMPUTED);
        Ended::suspended(self.options.suspended_exit_code)
    }

    fn start_timers(&self) -> io::Result<()> {
        let limits = &self.options.limits;
        if let Some(Trigger::After(delay)) = self.options.stop_at {
            timer::start(delay, StopCause::Time, self.requests.clone())?;
        }
        if let Some(delay) = limits.timeout {
            timer::start(delay, StopCause::Timeout, self.requests.clone())?;
        }
        if let Some(limit) = limits.cpu_timeout {
            timer::start_processor(limit, StopCause::CpuTimeout, self.requests.clone())?;
        }
        Ok(())
    }

    /// Without a name, programs run on a store that cannot be used, and `ps` does not know them.
    fn register(&mut self, label: &str) -> Result<Option<Registration>, Failure> {
        let named = self.keeper.name().is_some();
        match self.try_register(label) {
            Ok(registration) => Ok(Some(registration)),
            Err(failure) if named => Err(failure),
            Err(_) => Ok(None),
        }
    }

    fn try_register(&mut self, label: &str) -> Result<Registration, Failure> {
        let keeper = self.keeper.clone();
        let requests = self.requests.clone();
        let flags = self.words_to_go_on();
        let store = self.store()?;
        let name = keeper.name().map(str::to_owned);
        let (registration, listener) = register::register(store, name, label, flags)?;
        let desk = Desk {
            keeper,
            store: store.clone(),
            requests,
        };
        control::serve(listener, desk).map_err(|error| cannot_start(&error))?;
        Ok(registration)
    }

    fn store(&mut self) -> Result<&Store, Failure> {
        match &mut self.store {
            Some(store) => Ok(store),
            empty => Ok(empty.insert(self.places.create_store()?)),
        }
    }

    /// Nobody else gets the program's name as long as the session lasts.
    pub fn hold(&mut self, job: Job) {
        self.job = Some(job);
    }

    /// A program that is resumed from an image under another name has that image as its latest.
    pub fn point_at(&self, store: &Store, image: ImageId) -> Result<(), Failure> {
        match self.keeper.name() {
            Some(name) if store.latest(name)? != Some(image) => Ok(store.set_name(name, image)?),
            _ => Ok(()),
        }
    }

    /// Where the program's standard output leads. Its file, if it has one, is cut back to what the program had written at the
    /// snapshot of a record; to nothing for a program that starts.
    pub fn cut_output(&mut self, record: Option<&Record>) -> Result<Stdio, Failure> {
        let Some(output) = &mut self.output else {
            return Ok(Stdio::Inherit);
        };
        let path = output.path().to_owned();
        let failed = |error: &io::Error| Failure::io("write the output to", &path, error);
        let bytes = match record {
            None => 0,
            Some(record) => match record.output_bytes {
                Some(bytes) => bytes,
                // Nobody knows what of it is the program's.
                None => output.byte_len().map_err(|error| failed(&error))?,
            },
        };
        output.cut_to(bytes).map_err(|error| failed(&error))?;
        let descriptor = output.descriptor().map_err(|error| failed(&error))?;
        Ok(Stdio::Descriptor(descriptor))
    }

    /// The program listens on these addresses: on those that were `chosen` where the flags left it open. Whoever resumes it is
    /// told to do the same for it.
    pub fn listening(self, listeners: &'a [Listen], chosen: Vec<SocketAddr>) -> Self {
        Self {
            listeners,
            chosen,
            ..self
        }
    }

    /// How long the program has run in all, at all its attempts.
    pub fn age(&self) -> Duration {
        self.keeper.kept().age()
    }
}

/// Where a program comes from that is resumed from a snapshot that somebody has named.
pub(crate) fn origin(record: Option<&Record>) -> Origin {
    Origin {
        record: record.map(|record| record.id),
        age: Duration::from_millis(record.map_or(0, |record| record.ran_ms)),
    }
}

/// Runs a program that cannot be suspended, to its end.
pub(crate) fn run_bare(mut instance: Instance, limits: &LimitArgs) -> Result<ExitCode, Failure> {
    instance.set_limits(limits.limits())?;
    Ok(Ended::of(instance.run())?.exit_code())
}

fn cannot_start(error: &io::Error) -> Failure {
    Failure::new(format!("cannot watch over the program: {error}"))
}
