//! `wsnap snap`.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use wsnap::snapshots::{ImageId, Store, check_name};

use crate::arguments::Label;
use crate::failure::Failure;
use crate::output;
use crate::places::Places;
use crate::session::control::{self, Answer, Ask};
use crate::session::register::{self, Entry};

/// Take a snapshot of a running program
///
/// The program goes on while its image is written: it stands still only while its state is captured, usually for less than
/// a millisecond. The image's id is printed when it is safe on the disk; --json tells the two moments apart.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wsnap snap sim\n  wsnap snap --stop --tag before-upgrade 4711"
)]
pub(crate) struct Snap {
    /// Stop the program after the snapshot: it exits as if it had been sent SIGTERM
    #[arg(long)]
    stop: bool,
    /// Keep this with the record of the snapshot; can be given several times
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<Label>,
    /// Give the image a tag
    #[arg(long)]
    tag: Option<String>,
    /// Print the id and how long it took as JSON
    #[arg(long)]
    json: bool,
    /// The running program: its name or the id of its process
    #[arg(value_name = "NAME-or-PID")]
    program: String,
}

#[derive(Serialize)]
struct Report<'a> {
    id: &'a str,
    tag: Option<&'a str>,
    taken_ms: u64,
    durable_ms: u64,
    pause_us: u64,
}

impl Report<'_> {
    /// When the state was captured, and when it was safe.
    fn moments(&self, stopped: bool) -> String {
        let (taken, durable) = (self.taken_ms, self.durable_ms);
        if stopped {
            return format!("taken after {taken} ms, durable after {durable} ms");
        }
        let pause_ms = self.pause_us as f64 / 1000.0;
        format!(
            "taken after {taken} ms (the program stood still for {pause_ms:.1} ms), durable after {durable} ms"
        )
    }
}

impl Snap {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        let (store, entry) = self.find(places)?;
        if let Some(tag) = &self.tag {
            check_name(tag)?;
        }
        let lost =
            |why: String| Failure::new(format!("no snapshot of process {}: {why}", entry.pid));
        let connection = entry.connect().map_err(|error| lost(error.to_string()))?;
        let question = Ask {
            stop: self.stop,
            labels: Label::collect(&self.labels),
        };
        let answer =
            control::ask(connection, &question).map_err(|error| lost(error.to_string()))?;
        match answer {
            Some(Answer::Image {
                id,
                taken_ms,
                durable_ms,
                pause_us,
            }) => {
                let report = Report {
                    id: &id,
                    tag: self.tag.as_deref(),
                    taken_ms,
                    durable_ms,
                    pause_us,
                };
                self.report(&store, &report)
            }
            Some(Answer::Refused { message, hint }) => {
                let failure = lost(message);
                Err(match hint {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                })
            }
            None => Err(lost("the program ended before it was suspended".to_owned())),
        }
    }

    fn find(&self, places: &Places) -> Result<(Store, Entry), Failure> {
        if let Some(store) = places.find_store()? {
            let entries = register::running(store.directory())?;
            if let Some(entry) = entries.into_iter().find(|entry| self.is_meant(entry)) {
                return Ok((store, entry));
            }
        }
        Err(Failure::new(format!(
            "no running program has the name or process id {:?}",
            self.program
        ))
        .hint("`wsnap ps` lists the running programs of a store; --store names another store"))
    }

    fn is_meant(&self, entry: &Entry) -> bool {
        entry.name.as_ref() == Some(&self.program) || entry.pid.to_string() == self.program
    }

    fn report(&self, store: &Store, report: &Report<'_>) -> Result<ExitCode, Failure> {
        let id = report.id;
        if self.json {
            output::json_result(report)?;
        } else {
            output::result(id)?;
            output::message(report.moments(self.stop));
        }
        if let Some(tag) = &self.tag {
            let id: ImageId = id.parse().map_err(|_| {
                Failure::new(format!("the program answered {id:?}, which is no image id"))
            })?;
            store.set_tag(tag, id)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
