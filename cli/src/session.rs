//! A running program: what asks it to stop, what is done with its snapshots, and how it ends.
//!
//! ```text
//!  signals ─┐                        main thread
//!  timer ───┼─► Requests ── stop ──► Instance::run ──► Suspended ──► snapshot ──► store ──► name, id file, answers
//!  socket ──┘                             ▲                              │                          │
//!                                         └──── refused, not written, or nobody asked to stop ◄─────┤
//!                                                                         exit 85 ◄─────────────────┘
//! ```
//!
//! The program runs on the main thread. The other threads only put requests into a queue and ask the program to
//! suspend; everything else is done here, between two runs of it. A snapshot that cannot be taken ends nothing: the
//! program goes on, so that what it has computed is not lost. The same holds when it cannot be written, unless a flag
//! said where to stop: then whoever gave the flag waits for an image, and gets the error instead.

pub(crate) mod control;
pub(crate) mod register;

mod id_file;
mod requests;
mod signals;
mod timer;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use wsnap::snapshots::{ImageId, Store, check_name};
use wsnap::{Instance, Outcome, StopReason};

use crate::arguments::{Directory, Trigger};
use crate::failure::{self, Failure};
use crate::output;
use crate::places::{Places, check_writable};
use crate::program::print_results;
use control::Answer;
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
    /// Exit with this code when the program has been suspended
    #[arg(long, value_name = "CODE", default_value_t = SUSPENDED)]
    pub suspended_exit_code: u8,
    /// Report a suspension as one line of JSON on standard error
    #[arg(long)]
    pub json: bool,
}

/// Everything around one running program.
pub(crate) struct Session<'a> {
    places: &'a Places,
    options: &'a Options,
    /// The name that the program goes by, given or inherited from the image.
    name: Option<String>,
    directories: &'a [Directory],
    /// Opened when it is first needed, because a program that nobody stops needs none.
    store: Option<Store>,
}

/// An image of the program has been stored.
struct Taken {
    id: ImageId,
    /// From the request until the program's state was captured.
    taken: Duration,
    /// From the request until the image was safe on the disk.
    durable: Duration,
}

impl<'a> Session<'a> {
    /// Prepares for a program; fails early when it is sure that its snapshots could not be written.
    pub fn prepare(
        places: &'a Places,
        options: &'a Options,
        name: Option<String>,
        directories: &'a [Directory],
    ) -> Result<Self, Failure> {
        let mut session = Self {
            places,
            options,
            name,
            directories,
            store: None,
        };
        if session.name.is_some() || options.stop_at.is_some() {
            let name = session.name.clone();
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
        let registration = self.register(label, &requests)?;
        match self.options.stop_at {
            Some(Trigger::Safepoint(number)) => instance.stop_at_safepoint(number),
            Some(Trigger::After(delay)) => {
                timer::start(delay, requests.clone()).map_err(|error| cannot_start(&error))?;
            }
            Some(Trigger::Stdin) => instance.wasi().set_stdin_probe(true),
            None => (),
        }
        let code = self.run_to_end(&mut instance, &requests);
        drop(registration);
        code
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
            if let Some(code) = self.suspended(instance, &reason, requests.take()) {
                return Ok(code);
            }
        }
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
            cause.is_some(),
            &mut captured,
        );
        for request in requests {
            request.answer(match &taken {
                Ok(taken) => Answer::Image {
                    id: taken.id.to_string(),
                    taken_ms: output::milliseconds(taken.taken),
                    durable_ms: output::milliseconds(taken.durable),
                },
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
        is_last: bool,
        captured: &mut bool,
    ) -> Result<Taken, Failure> {
        let name = self.name.clone();
        let id_file = self.options.id_file.as_deref();
        let store = self.store()?;
        let snapshot = instance.snapshot()?;
        *captured = true;
        let taken = since.elapsed();
        // The terminal of a program that goes on is its own.
        let progress = is_last.then(|| output::progress("writing the image …".to_owned()));
        let id = snapshot.store(store);
        drop(progress);
        let id = id?;
        let stored = |failure: Failure| failure.about(format!("image {id} is stored, but"));
        if let Some(name) = &name {
            store
                .set_name(name, id)
                .map_err(|error| stored(error.into()))?;
        }
        if let Some(path) = id_file {
            id_file::write(path, id).map_err(stored)?;
        }
        Ok(Taken {
            id,
            taken,
            durable: since.elapsed(),
        })
    }

    /// Without a name, programs run on a store that cannot be used, and `ps` does not know them.
    fn register(
        &mut self,
        label: &str,
        requests: &Requests,
    ) -> Result<Option<Registration>, Failure> {
        let named = self.name.is_some();
        match self.try_register(label, requests) {
            Ok(registration) => Ok(Some(registration)),
            Err(failure) if named => Err(failure),
            Err(_) => Ok(None),
        }
    }

    fn try_register(&mut self, label: &str, requests: &Requests) -> Result<Registration, Failure> {
        let name = self.name.clone();
        let (registration, listener) = register::register(self.store()?, name, label)?;
        control::serve(listener, requests.clone()).map_err(|error| cannot_start(&error))?;
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
                    name: self.name.as_deref(),
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

    fn resume_command(&self, id: ImageId) -> Vec<String> {
        let mut words = vec!["wsnap".to_owned(), "resume".to_owned()];
        words.extend(self.places.store_flags());
        for directory in self.directories {
            words.push("--dir".to_owned());
            words.push(directory.to_string());
        }
        words.push(match &self.name {
            Some(name) => name.clone(),
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
        _ => requests.iter().find_map(Request::stop_cause),
    }
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
pub(crate) fn run_bare(mut instance: Instance) -> Result<ExitCode, Failure> {
    finish(instance.run()?)
}

fn resume_line(words: &[String]) -> String {
    let joined = shlex::try_join(words.iter().map(String::as_str));
    joined.unwrap_or_else(|_| words.join(" "))
}

fn cannot_start(error: &io::Error) -> Failure {
    Failure::new(format!("cannot watch over the program: {error}"))
}
