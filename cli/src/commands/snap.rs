//! `wsnap snap`.

use std::io;
use std::process::ExitCode;
use std::thread;

use clap::Args;
use serde::Serialize;
use wsnap::snapshots::{ImageId, Store, check_name};

use crate::arguments::Label;
use crate::failure::Failure;
use crate::output;
use crate::places::Places;
use crate::rollout::{self, Stopped};
use crate::session::control::{self, Answer, Ask};
use crate::session::register::{self, Entry};

/// Take a snapshot of a running program
///
/// The program goes on while its image is written: it stands still only while its state is captured, usually for less than
/// a millisecond. The image's id is printed when it is safe on the disk; --json tells the two moments apart. Of a program that
/// waits for a slot, or to be tried again, it is the image that it goes on from; without one there is nothing to print.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wsnap snap sim\n  wsnap snap --stop --tag before-upgrade 4711\n  wsnap snap --all --stop     # before maintenance; `wsnap resume --all` goes on with all of them"
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
    /// Take a snapshot of every program that runs on this store, all at once
    #[arg(long, conflicts_with_all = ["tag", "program"])]
    all: bool,
    /// The running program: its name or the id of its process
    #[arg(value_name = "NAME-or-PID", required_unless_present = "all")]
    program: Option<String>,
}

/// What a program answered.
enum Reply {
    /// There is an image.
    Image(Image),
    /// It does not run, and starts from the beginning the next time.
    NotBegun,
}

/// Why a program did not answer.
enum NoReply {
    /// It goes on, and says why there is no image.
    Refused(Failure),
    /// It has ended, or nobody knows.
    Lost(Failure),
}

/// What is known of an image.
#[derive(Serialize)]
struct Image {
    id: String,
    taken_ms: u64,
    durable_ms: u64,
    pause_us: u64,
}

impl Image {
    fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

#[derive(Serialize)]
struct OneOfAll {
    pid: u32,
    name: Option<String>,
    #[serde(flatten)]
    image: Option<Image>,
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
        if self.all {
            return self.snap_all(places);
        }
        let program = self.program.clone().unwrap_or_default();
        let (store, entry) = find(places, &program)?;
        if let Some(tag) = &self.tag {
            check_name(tag)?;
        }
        let image = match self.ask(&entry) {
            Ok(Reply::Image(image)) => image,
            Ok(Reply::NotBegun) => return self.report_not_begun(),
            Err(NoReply::Refused(failure) | NoReply::Lost(failure)) => return Err(failure),
        };
        let report = Report {
            id: &image.id,
            tag: self.tag.as_deref(),
            taken_ms: image.taken_ms,
            durable_ms: image.durable_ms,
            pause_us: image.pause_us,
        };
        self.report(&store, &report)
    }

    /// Takes a snapshot of one program.
    fn ask(&self, entry: &Entry) -> Result<Reply, NoReply> {
        let lost =
            |why: String| Failure::new(format!("no snapshot of process {}: {why}", entry.pid));
        let ended = || NoReply::Lost(lost("the program ended before it was suspended".to_owned()));
        let no_answer = |error: io::Error| NoReply::Lost(lost(error.to_string()));
        let connection = entry
            .connect()
            .map_err(|error| match register::has_ended(&error) {
                true => ended(),
                false => no_answer(error),
            })?;
        let question = Ask {
            stop: self.stop,
            labels: Label::collect(&self.labels),
        };
        match control::ask(connection, &question).map_err(no_answer)? {
            Some(Answer::Image {
                id,
                taken_ms,
                durable_ms,
                pause_us,
            }) => Ok(Reply::Image(Image {
                id,
                taken_ms,
                durable_ms,
                pause_us,
            })),
            Some(Answer::NotBegun) => Ok(Reply::NotBegun),
            Some(Answer::Refused { message, hint }) => {
                let failure = lost(message);
                Err(NoReply::Refused(match hint {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }))
            }
            None => Err(ended()),
        }
    }

    fn snap_all(&self, places: &Places) -> Result<ExitCode, Failure> {
        let directory = places.store_directory()?;
        let entries = match self.stop {
            true => rollout::plan(&directory)?,
            false => register::running(&directory)?,
        };
        // Each waits for its own disk and safepoint, so nobody waits for the others.
        let replies: Vec<Result<Reply, NoReply>> = thread::scope(|scope| {
            let asked: Vec<_> = entries
                .iter()
                .map(|entry| scope.spawn(|| self.ask(entry)))
                .collect();
            let gone = |_| Err(NoReply::Lost(Failure::new("a thread of wsnap died")));
            asked
                .into_iter()
                .map(|asked| asked.join().unwrap_or_else(gone))
                .collect()
        });
        let mut table = output::table(&["PID", "NAME", "IMAGE", "DURABLE AFTER"]);
        let mut taken = Vec::new();
        let mut failed = 0;
        for (entry, reply) in entries.iter().zip(replies) {
            if self.stop {
                rollout::change(&directory, |all| note(all, entry, &reply))?;
            }
            let image = match reply {
                Ok(Reply::Image(image)) => Some(image),
                Ok(Reply::NotBegun) => None,
                Err(NoReply::Refused(failure) | NoReply::Lost(failure)) => {
                    failure.print();
                    failed += 1;
                    continue;
                }
            };
            table.add_row([
                entry.pid.to_string(),
                entry.name.clone().unwrap_or_else(|| "-".to_owned()),
                image
                    .as_ref()
                    .map_or("(not begun)", Image::short_id)
                    .to_owned(),
                image.as_ref().map_or_else(
                    || "-".to_owned(),
                    |image| format!("{} ms", image.durable_ms),
                ),
            ]);
            taken.push(OneOfAll {
                pid: entry.pid,
                name: entry.name.clone(),
                image,
            });
        }
        if self.json {
            output::json_result(&taken)?;
        } else if taken.is_empty() {
            output::message("no program is running");
        } else {
            output::result(table.trim_fmt())?;
        }
        match failed {
            0 => Ok(ExitCode::SUCCESS),
            _ => Err(Failure::new(format!(
                "there is no snapshot of {}",
                output::count(failed, "program", "programs")
            ))),
        }
    }

    /// There is no image, and nothing that one could hold.
    fn report_not_begun(&self) -> Result<ExitCode, Failure> {
        if self.json {
            output::json_result(&serde_json::json!({ "id": null, "tag": null }))?;
        }
        let what = match self.stop {
            true => "the program had not begun to run, and is stopped",
            false => "the program has not begun to run",
        };
        if self.tag.is_some() {
            return Err(Failure::new(format!(
                "{what}: there is no image to give a tag"
            )));
        }
        output::message(format_args!(
            "{what}: there is no image, and it starts from the beginning"
        ));
        Ok(ExitCode::SUCCESS)
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

/// Notes what is known of a program that was to be stopped with all others.
fn note(all: &mut Vec<Stopped>, entry: &Entry, reply: &Result<Reply, NoReply>) {
    match reply {
        Ok(Reply::Image(image)) => rollout::has_stopped(all, entry, Stopped::of(entry, &image.id)),
        Ok(Reply::NotBegun) => {
            rollout::has_stopped(all, entry, Stopped::before_its_beginning(entry));
        }
        // It runs.
        Err(NoReply::Refused(_)) => all.retain(|program| !program.is(entry)),
        // If it has come to its end it has said so itself.
        Err(NoReply::Lost(_)) => (),
    }
}

fn find(places: &Places, program: &str) -> Result<(Store, Entry), Failure> {
    let is_meant =
        |entry: &Entry| entry.name.as_deref() == Some(program) || entry.pid.to_string() == program;
    if let Some(store) = places.find_store()? {
        let entries = register::running(store.directory())?;
        if let Some(entry) = entries.into_iter().find(is_meant) {
            return Ok((store, entry));
        }
    }
    Err(Failure::new(format!(
        "no running program has the name or process id {program:?}"
    ))
    .hint("`wsnap ps` lists the running programs of a store; --store names another store"))
}
