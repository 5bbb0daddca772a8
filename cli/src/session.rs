//! A running program: what asks it to stop, what is done with its snapshots, and how it ends.
//!
//! ```text
//!  signals ──────┐                        main thread
//!  timer ────────┼─► Requests ── stop ──► Instance::run ──► Suspended ──► snapshot ──► Keeper ──► answers ──► exit 85
//!  snap --stop ──┘                             ▲  │             ▲                         │
//!                                              │  │             └── goes on if refused ◄──┤
//!  snap ── Handle::snapshot ◄── in passing ────┘──┘                                       │
//!            └───────────────────────────────────────────────► Keeper ──► answer          │
//! ```
//!
//! The program runs on the main thread. A snapshot of a program that goes on is taken and stored by the thread of the
//! client that asks for it; whatever is to stop the program puts a request into a queue and is dealt with here, between
//! two runs of it. A snapshot that cannot be taken ends nothing: the program goes on, so that what it has computed is not
//! lost. The same holds when it cannot be written, unless a flag said where to stop: then whoever gave the flag waits for
//! an image, and gets the error instead.

pub(crate) mod control;
pub(crate) mod register;

mod id_file;
mod keeper;
mod own;
mod requests;
mod signals;
mod timer;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use wsnap::snapshots::{ImageId, RecordId, Store, check_name};
use wsnap::{Handle, Instance, Outcome, StopReason};

use crate::arguments::{Directory, Label, Trigger};
use crate::failure::{self, Failure};
use crate::limits::{LimitArgs, OnTimeout};
use crate::listen::Listen;
use crate::output;
use crate::places::{Places, check_writable};
use crate::program::print_results;
use control::{Answer, Desk, SNAP_TRIGGER};
use keeper::{Keeper, Taken};
use register::Registration;
use requests::{Request, Requests, StopCause};

/// The exit code of a program that trapped: what a shell reports for `abort`.
const TRAPPED: u8 = 134;
/// ERESTART: what schedulers take for "start it again, it will go on".
const SUSPENDED: u8 = 85;

/// The flags that `run` and `resume` share.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Give the program a name: `snap NAME` finds it while it runs, `resume NAME` goes on from its latest image
    #[arg(long)]
    pub name: Option<String>,
    /// Suspend the program by itself: safepoint=N (the N-th from now), after=DURATION (such as 10ms, 1.5s, 2m), or
    /// stdin (when it would block reading standard input)
    #[arg(long, value_name = "TRIGGER")]
    pub stop_at: Option<Trigger>,
    /// Write the id of each image that is taken of the program to this file
    #[arg(long, value_name = "FILE")]
    pub id_file: Option<PathBuf>,
    /// Keep this with the record of each snapshot of the program; can be given several times
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<Label>,
    /// Exit with this code when the program has been suspended
    #[arg(long, value_name = "CODE", default_value_t = SUSPENDED)]
    pub suspended_exit_code: u8,
    /// Report a suspension as one line of JSON on standard error
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Everything around one running program.
pub(crate) struct Session<'a> {
    places: &'a Places,
    options: &'a Options,
    keeper: Arc<Keeper>,
    directories: &'a [Directory],
    listeners: &'a [Listen],
    /// Where the program listens, as far as the flags do not say it.
    chosen: Vec<SocketAddr>,
    /// Opened when it is first needed, because a program that nobody stops needs none.
    store: Option<Store>,
}

impl Options {
    /// Whether the program is compiled so that its safepoints can be counted, which makes it slower.
    pub fn counts_safepoints(&self) -> bool {
        matches!(self.stop_at, Some(Trigger::Safepoint(2..)))
    }
}

impl<'a> Session<'a> {
    /// Prepares for a program that goes by `name` and comes from the snapshot that `parent` records; fails early when
    /// it is sure that its snapshots could not be written.
    pub fn prepare(
        places: &'a Places,
        options: &'a Options,
        name: Option<String>,
        parent: Option<RecordId>,
        directories: &'a [Directory],
    ) -> Result<Self, Failure> {
        let (id_file, labels) = (options.id_file.clone(), Label::collect(&options.labels));
        let mut session = Self {
            places,
            options,
            keeper: Arc::new(Keeper::new(name.clone(), id_file, labels, parent)),
            directories,
            listeners: &[],
            chosen: Vec::new(),
            store: None,
        };
        if name.is_some() || options.stop_at.is_some() {
            let store = session.store()?;
            check_writable(store)?;
            if let Some(name) = name {
                check_name(&name)?;
            }
        }
        if let Some(path) = &options.id_file {
            id_file::check(path)?;
        }
        Ok(session)
    }

    /// Runs the program to its end or its suspension and says how this process is to end.
    ///
    /// `label` is what `wsnap ps` shows as the module.
    pub fn run(mut self, mut instance: Instance, label: &str) -> Result<ExitCode, Failure> {
        let requests = Requests::new(instance.handle());
        // Signals first: whoever finds the program in the register may send one.
        signals::watch(requests.clone()).map_err(|error| cannot_start(&error))?;
        Listen::announce(&self.chosen);
        let registration = self.register(label, &requests, &instance.handle())?;
        own::keep(
            &mut instance,
            self.places,
            self.store.clone(),
            self.keeper.clone(),
        );
        match self.options.stop_at {
            Some(Trigger::Safepoint(number)) => instance.stop_at_safepoint(number)?,
            Some(Trigger::After(delay)) => {
                timer::start(delay, StopCause::Time, requests.clone())
                    .map_err(|error| cannot_start(&error))?;
            }
            Some(Trigger::Stdin) => instance.wasi().set_stdin_probe(true),
            None => (),
        }
        instance.set_limits(self.options.limits.limits())?;
        self.start_deadlines(&requests)
            .map_err(|error| cannot_start(&error))?;
        let code = self.run_to_end(&mut instance, &requests);
        // Whoever waits for a snapshot learns that there will be none.
        drop(instance);
        drop(registration);
        self.keeper.finish();
        code
    }

    fn start_deadlines(&self, requests: &Requests) -> io::Result<()> {
        let limits = &self.options.limits;
        if let Some(delay) = limits.timeout {
            timer::start(delay, StopCause::Timeout, requests.clone())?;
        }
        if let Some(limit) = limits.cpu_timeout {
            timer::start_processor(limit, StopCause::CpuTimeout, requests.clone())?;
        }
        Ok(())
    }

    fn run_to_end(
        &mut self,
        instance: &mut Instance,
        requests: &Requests,
    ) -> Result<ExitCode, Failure> {
        loop {
            let reason = match instance.run()? {
                Outcome::Suspended(reason) => reason,
                end => return finish(end),
            };
            let requests = requests.take();
            if let Some(code) = self.killed(&requests) {
                return Ok(code);
            }
            if let Some(code) = self.suspended(instance, &reason, requests) {
                return Ok(code);
            }
        }
    }

    /// Whether the program's time is up, and it is to end for it: then the exit code.
    fn killed(&self, requests: &[Request]) -> Option<ExitCode> {
        // Whoever else asked for a stop meanwhile wants an image.
        let is_deadline = |request: &Request| request.stop_cause().deadline().is_some();
        let all = requests.iter().all(is_deadline);
        all.then(|| self.end_of_time(deadline(requests))).flatten()
    }

    /// Ends the program, unless its time is not up, or it is to be suspended then: the exit code.
    fn end_of_time(&self, deadline: Option<(&str, &str)>) -> Option<ExitCode> {
        if self.options.limits.on_timeout == OnTimeout::Suspend {
            return None;
        }
        let (what, flag) = deadline?;
        let failure = Failure::new(format!("the program's {what} is up ({flag})"));
        failure
            .hint("--on-timeout suspend stores it instead, so that it can go on later")
            .print();
        Some(ExitCode::from(TRAPPED))
    }

    /// Does what was asked for, and returns the exit code if the program is not to go on.
    fn suspended(
        &mut self,
        instance: &mut Instance,
        reason: &StopReason,
        requests: Vec<Request>,
    ) -> Option<ExitCode> {
        let cause = stop_cause(reason, &requests);
        // Somebody asked, and what they asked for was part of the snapshot before.
        if cause.is_none() && requests.is_empty() {
            return None;
        }
        let since = requests.iter().map(Request::since).min();
        let mut captured = false;
        let taken = self.snapshot(
            instance,
            since.unwrap_or_else(Instant::now),
            cause,
            &requests,
            &mut captured,
        );
        let deadline = deadline(&requests);
        for request in requests {
            request.answer(match &taken {
                Ok(taken) => Answer::image(taken),
                Err(failure) => Answer::refusal(failure),
            });
        }
        let cause = cause?;
        match taken {
            Ok(taken) => {
                self.report(&taken, cause);
                Some(ExitCode::from(self.options.suspended_exit_code))
            }
            Err(failure) => {
                failure.print();
                if captured && cause.is_flag() {
                    return Some(ExitCode::from(failure::OTHER));
                }
                if let Some(code) = self.end_of_time(deadline) {
                    return Some(code);
                }
                // Nothing will be another way when it waits for its input the next time.
                instance.wasi().set_stdin_probe(false);
                output::message("the program goes on, so that nothing is lost");
                None
            }
        }
    }

    /// Takes a snapshot and stores it; `captured` tells whether what fails is the storing.
    fn snapshot(
        &mut self,
        instance: &mut Instance,
        since: Instant,
        cause: Option<StopCause>,
        requests: &[Request],
        captured: &mut bool,
    ) -> Result<Taken, Failure> {
        let keeper = self.keeper.clone();
        let store = self.store()?;
        let snapshot = instance.snapshot()?;
        *captured = true;
        // The terminal of a program that goes on is its own.
        let _progress = cause.map(|_| output::progress("writing the image …".to_owned()));
        let trigger = cause.map_or(SNAP_TRIGGER, StopCause::as_str);
        let labels = requests.iter().flat_map(Request::labels);
        let labels = labels.map(|(key, value)| (key.clone(), value.clone()));
        keeper.keep(store, &snapshot, since, trigger, &labels.collect())
    }

    /// Without a name, programs run on a store that cannot be used, and `ps` does not know them.
    fn register(
        &mut self,
        label: &str,
        requests: &Requests,
        handle: &Handle,
    ) -> Result<Option<Registration>, Failure> {
        let named = self.keeper.name().is_some();
        match self.try_register(label, requests, handle) {
            Ok(registration) => Ok(Some(registration)),
            Err(failure) if named => Err(failure),
            Err(_) => Ok(None),
        }
    }

    fn try_register(
        &mut self,
        label: &str,
        requests: &Requests,
        handle: &Handle,
    ) -> Result<Registration, Failure> {
        let keeper = self.keeper.clone();
        let store = self.store()?;
        let name = keeper.name().map(str::to_owned);
        let (registration, listener) = register::register(store, name, label)?;
        let desk = Desk {
            handle: handle.clone(),
            keeper,
            store: store.clone(),
            requests: requests.clone(),
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

    fn report(&self, taken: &Taken, cause: StopCause) {
        let resume = self.resume_command(taken.id);
        if self.options.json {
            output::json_message(&Report {
                suspended: Suspension {
                    id: taken.id.to_string(),
                    name: self.keeper.name(),
                    cause: cause.as_str(),
                    taken_ms: output::milliseconds(taken.taken),
                    durable_ms: output::milliseconds(taken.durable),
                    resume: &resume,
                },
            });
            return;
        }
        output::message(format_args!(
            "suspended ({}) as image {}\nresume with: {}",
            cause.as_str(),
            taken.id,
            resume_line(&resume)
        ));
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

    fn resume_command(&self, id: ImageId) -> Vec<String> {
        let mut words = vec!["wsnap".to_owned(), "resume".to_owned()];
        words.extend(self.places.store_flags());
        for directory in self.directories {
            words.push("--dir".to_owned());
            words.push(directory.to_string());
        }
        for address in self.listeners {
            words.push("--tcplisten".to_owned());
            words.push(address.to_string());
        }
        words.push(match self.keeper.name() {
            Some(name) => name.to_owned(),
            None => output::short_id(id),
        });
        words
    }
}

/// The report of a suspension, on standard error.
#[derive(Serialize)]
struct Report<'a> {
    suspended: Suspension<'a>,
}

#[derive(Serialize)]
struct Suspension<'a> {
    id: String,
    name: Option<&'a str>,
    cause: &'static str,
    taken_ms: u64,
    durable_ms: u64,
    /// The command line that goes on, word by word.
    resume: &'a [String],
}

/// Why the program is not to go on, if it isn't.
fn stop_cause(reason: &StopReason, requests: &[Request]) -> Option<StopCause> {
    match reason {
        StopReason::Safepoint => Some(StopCause::Safepoint),
        StopReason::Stdin => Some(StopCause::Stdin),
        _ => requests.first().map(Request::stop_cause),
    }
}

/// The limit of time that one of the requests says is reached, and its flag.
fn deadline(requests: &[Request]) -> Option<(&'static str, &'static str)> {
    let mut causes = requests.iter().map(Request::stop_cause);
    causes.find_map(StopCause::deadline)
}

fn finish(end: Outcome) -> Result<ExitCode, Failure> {
    match end {
        Outcome::Returned(results) => {
            print_results(&results)?;
            Ok(ExitCode::SUCCESS)
        }
        // The operating system keeps the lowest byte of an exit code.
        Outcome::Exited(code) => Ok(ExitCode::from(code.to_le_bytes()[0])),
        Outcome::Trapped(trap) => {
            output::error(trap.to_string().trim_end());
            Ok(ExitCode::from(TRAPPED))
        }
        Outcome::Suspended(_) => Ok(ExitCode::from(SUSPENDED)),
    }
}

/// Runs a program that cannot be suspended, to its end.
pub(crate) fn run_bare(mut instance: Instance, limits: &LimitArgs) -> Result<ExitCode, Failure> {
    instance.set_limits(limits.limits())?;
    finish(instance.run()?)
}

fn resume_line(words: &[String]) -> String {
    let joined = shlex::try_join(words.iter().map(String::as_str));
    joined.unwrap_or_else(|_| words.join(" "))
}

fn cannot_start(error: &io::Error) -> Failure {
    Failure::new(format!("cannot watch over the program: {error}"))
}
