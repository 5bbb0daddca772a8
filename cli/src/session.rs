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
pub(crate) mod start;
pub(crate) mod words;

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
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use wsnap::Instance;
use wsnap::snapshots::{ImageId, Record, Store, StoreError, check_name};
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
use register::{Registration, Words};
use requests::{Requests, StopCause};
use slot::Slot;
use start::StartsAt;
use words::{CalledAs, own_words};

/// The exit code of a program that trapped: what a shell reports for `abort`.
pub(crate) const TRAPPED: u8 = 134;
/// ERESTART: what schedulers take for "start it again, it will go on".
const SUSPENDED: u8 = 85;

/// Who has a name that is wanted has so much time to end.
const TAKEN_TIMEOUT: Duration = Duration::from_secs(2);
const TAKEN_LOOK_PERIOD: Duration = Duration::from_millis(5);

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
    called_as: CalledAs,
    /// The program has come to an end of its own choice.
    is_over: bool,
}

/// That signals and clients are heard.
struct Watch {
    registration: Option<Registration>,
}

impl<'a> Session<'a> {
    /// Prepares for a program that goes by `name`; fails early when it is sure that its snapshots could not be written.
    /// The job is the program's if it has a name: this process has it to itself.
    pub fn prepare(
        places: &'a Places,
        options: &'a Options,
        name: Option<String>,
        directories: &'a [Directory],
        called_as: CalledAs,
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
            options.saving.grace(called_as.goes_on_by_itself()),
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
            called_as,
            is_over: false,
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
                let continues = self.called_as.goes_on_by_itself();
                job = Some(open_job(&store, &name, continues)?);
                self.grace.set_journal(store, name);
            }
        }
        if let Some(path) = &options.id_file {
            id_file::check(path)?;
        }
        Ok(job)
    }

    /// Runs the program, which is ready to start there, to its end or its suspension and says how this process is to end.
    ///
    /// `label` is what `wsnap ps` shows as the module.
    pub fn run(
        mut self,
        instance: Instance,
        start: StartsAt,
        label: &str,
    ) -> Result<ExitCode, Failure> {
        self.set_origin(start.image());
        // Whoever finds the program may ask it for a snapshot.
        self.requests.aim(Some(instance.handle()));
        self.watch(label)?;
        self.claim();
        let ended = match self.await_slot()? {
            true => {
                let origin = self.take_over(start)?;
                let ended = self.attempt(instance, origin, None)?;
                if let (true, Some(job)) = (ended.is_own_end(), &mut self.job) {
                    job.finished()?;
                }
                ended
            }
            // Nothing has been computed since the program was started or resumed.
            false => {
                self.point_at(start)?;
                self.suspended_before_it_ran()
            }
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
            registration: self.register(label)?,
        });
        self.start_timers().map_err(|error| cannot_start(&error))
    }

    /// Whoever waits for a snapshot learns that there will be none.
    pub fn finish(mut self) {
        self.requests.close();
        self.watch = None;
        if self.is_over {
            // Whoever stops all programs does not find it any more, so it is not put into the list again.
            self.leave_list();
        }
        self.keeper.finish();
    }

    /// The program is made ready to run, or is so now: in between a signal ends this process at once.
    pub fn set_preparing(&self, preparing: bool) {
        self.grace.set_preparing(preparing);
    }

    /// Waits until the program, which has not run since its image, may do so, and says whether it is to.
    pub fn await_slot(&mut self) -> Result<bool, Failure> {
        if self.slot.is_some() {
            self.requests.set_waiting(true);
        }
        self.await_slot_again()
    }

    /// Waits until the program may go on, and says whether it is to.
    fn await_slot_again(&mut self) -> Result<bool, Failure> {
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
        self.requests.set_waiting(true);
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if !self.requests.wait(left) {
                return true;
            }
            if self.requests.is_stop_wanted() {
                return false;
            }
        }
    }

    /// The program, which does not run, is to go on from this image the next time; without one, from the beginning.
    pub fn set_origin(&self, image: Option<ImageId>) {
        self.requests.aim(None);
        self.keeper.set_origin(image);
    }

    /// Somebody wants the program to stop while it does not run.
    pub fn suspended_before_it_ran(&self) -> Ended {
        for request in self.requests.take() {
            request.answer(match self.keeper.latest() {
                Some(taken) => Answer::image(&taken),
                None => Answer::NotBegun,
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
        let words = Words {
            to_go_on: self.words_to_go_on(),
            to_start: own_words(),
        };
        let store = self.store()?;
        let name = keeper.name().map(str::to_owned);
        let (registration, listener) = register::register(store, name, label, words)?;
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

/// Takes a name. The process that has it may just be ending: whoever was told that its program has been suspended comes at once.
/// Who `continues` a program does not start it again that comes to its end meanwhile.
fn open_job(store: &Store, name: &str, continues: bool) -> Result<Job, Failure> {
    let since = Instant::now();
    let since_ms = output::unix_ms(SystemTime::now());
    loop {
        let job = match Job::open(store, name, &register::this_process()) {
            Err(StoreError::JobTaken { .. }) if since.elapsed() < TAKEN_TIMEOUT => {
                thread::sleep(TAKEN_LOOK_PERIOD);
                continue;
            }
            job => job?,
        };
        let finished_at_ms = job.journal().finished_at_ms();
        if continues && finished_at_ms.is_some_and(|at_ms| at_ms >= since_ms) {
            return Err(Failure::new(format!(
                "the program {name:?}, which another process was running, has just come to its end"
            ))
            .hint("run the same line again to start it from the beginning"));
        }
        return Ok(job);
    }
}

fn cannot_start(error: &io::Error) -> Failure {
    Failure::new(format!("cannot watch over the program: {error}"))
}
