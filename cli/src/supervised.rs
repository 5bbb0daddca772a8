//! `run --continue` and `run --restart`: a program that is kept running.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};
use wsnap::Instance;
use wsnap::snapshots::RecordId;
use wsnap_supervision::{
    Attempt, DEFAULT_WINDOW, Death, End, Finish, Host, Job, Kind, Options, Origin, Supervisor,
    Verdict,
};

use crate::Cli;
use crate::arguments::parse_duration;
use crate::commands::run::Run;
use crate::failure::{self, Failure};
use crate::launch::FilesPolicy;
use crate::output;
use crate::session::ended::Ended;
use crate::session::{Session, TRAPPED};

/// So many digits of a record's id are those of its image's.
const IMAGE_DIGITS: usize = 12;

/// How a program is kept running.
#[derive(Debug, Args)]
#[command(next_help_heading = "Going on after crashes")]
pub(crate) struct RestartArgs {
    /// Go on from the newest good image of the name, or start if there is none: the same command line every time. Two
    /// processes never run one name at once
    #[arg(long = "continue", requires = "name")]
    continues: bool,
    /// When to try the program again by itself, from its newest good image
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        requires = "name"
    )]
    restart: Restart,
    /// How soon after a resume a crash tells against the image, and how near two crashes are that count as the same one,
    /// such as 10s
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "10s")]
    crash_window: Duration,
    /// What is expected of the files that the program had open when it goes on from an image
    #[arg(long, value_enum, default_value_t)]
    pub files: FilesPolicy,
}

/// When a program is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Restart {
    /// Never: whoever runs the command line the next time does so
    #[default]
    No,
    /// When it traps, or reaches a limit other than one of time
    OnCrash,
    /// Also when it ends with an exit code other than 0
    OnFailure,
}

impl RestartArgs {
    /// Whether the program is kept running here, or by whoever runs the command line again and again.
    pub fn is_supervised(&self) -> bool {
        self.continues || self.restart != Restart::No
    }

    /// Whether it goes on from what there is.
    pub fn continues(&self) -> bool {
        self.continues
    }

    /// The words of a command line that keeps the program running in the same way, but goes on from what there is; `own` are
    /// those of this one. None if it is not kept running.
    pub fn words_to_keep(&self, own: &[String]) -> Option<Vec<String>> {
        if self.continues {
            return Some(own.to_vec());
        }
        if !self.is_supervised() {
            return None;
        }
        // Behind the subcommand: the word `run` can also be the name of something, where the flag would not be understood.
        let places = own.iter().enumerate().filter(|(_, word)| *word == "run");
        let mut candidates = places.map(|(place, _)| {
            let mut words = own.to_vec();
            words.insert(place + 1, "--continue".to_owned());
            words
        });
        candidates.find(|words| is_continuing(words))
    }

    fn options(&self) -> Options {
        debug_assert_eq!(DEFAULT_WINDOW, Duration::from_secs(10));
        Options {
            restart: self.restart != Restart::No,
            window: self.crash_window,
            ..Options::default()
        }
    }
}

/// Keeps a program running until it ends, is stopped, or is given up. `launch` makes it ready to run.
pub(crate) fn run<'a>(
    session: Session<'a>,
    mut job: Job,
    arguments: &RestartArgs,
    label: &str,
    launch: impl FnMut(&mut Session<'a>, &Attempt) -> Result<Instance, Failure>,
) -> Result<ExitCode, Failure> {
    if !arguments.continues {
        // It is written down when the program begins to run.
        job.start_over()?;
    }
    let name = job.name().to_owned();
    let mut kept = KeptRunning {
        session,
        launch,
        failures_count: arguments.restart == Restart::OnFailure,
        restarts: arguments.restart != Restart::No,
        suspended: None,
    };
    kept.session.watch(label)?;
    let finish = Supervisor::new(job, arguments.options()).run(&mut kept);
    let suspended = kept.suspended;
    kept.session.finish();
    // Nobody gets the name before that.
    let Finish {
        output,
        given_up,
        job: _job,
    } = finish?;
    if let Some(reason) = given_up {
        Failure::new(format!("the program {name:?} has been given up: {reason}"))
            .hint(
                "`wsnap log` shows which images are rejected, and why; `wsnap resume IMAGE` goes on from one all the same, and `wsnap run` without --continue starts from the beginning",
            )
            .print();
        // Whoever runs the line again gets what tells a scheduler not to.
        let code = output.map_or(TRAPPED, |ended| ended.code);
        return Ok(ExitCode::from(code));
    }
    let ended = suspended.or(output);
    Ok(ended.map_or(ExitCode::from(failure::OTHER), |ended| ended.exit_code()))
}

/// What the supervision asks of the command line.
struct KeptRunning<'a, L> {
    session: Session<'a>,
    launch: L,
    failures_count: bool,
    restarts: bool,
    /// Somebody wanted the program to stop while it did not run.
    suspended: Option<Ended>,
}

impl<'a, L> Host for KeptRunning<'a, L>
where
    L: FnMut(&mut Session<'a>, &Attempt) -> Result<Instance, Failure>,
{
    type Ready = ReadyToRun;
    type Output = Ended;
    type Error = Failure;

    fn prepare(&mut self, attempt: &Attempt) -> Result<Option<Self::Ready>, Failure> {
        if let Some(record) = &attempt.record {
            output::message(format_args!(
                "going on from image {}, which was taken at {}",
                output::short_id(record.image),
                output::time(output::from_unix_ms(record.taken_at_ms))
            ));
        }
        self.session
            .set_origin(attempt.record.as_ref().map(|record| record.image));
        self.session.check_output(attempt.output_bytes())?;
        self.session.set_preparing(true);
        let launched = (self.launch)(&mut self.session, attempt);
        self.session.set_preparing(false);
        let mut instance = launched?;
        instance.set_resume_count(attempt.resume_count);
        self.session.claim();
        if !self.session.await_slot()? {
            self.suspended = Some(self.session.suspended_before_it_ran());
            return Ok(None);
        }
        Ok(Some(ReadyToRun {
            instance,
            origin: attempt.origin,
            output_bytes: attempt.output_bytes(),
        }))
    }

    fn run(&mut self, ready: Self::Ready, job: &mut Job) -> Result<End<Ended>, Failure> {
        self.session.cut_output(ready.output_bytes)?;
        let ended = self
            .session
            .attempt(ready.instance, ready.origin, Some(job))?;
        let ran = self.session.age().saturating_sub(job.attempt_age());
        Ok(ended.into_end(self.failures_count, ran))
    }

    fn died(&mut self, death: &Death, verdict: &Verdict) {
        if death.kind != Kind::Crash || !self.restarts {
            output::message(format_args!(
                "the last attempt died: {}",
                output::printable(&death.reason)
            ));
        }
        let (Verdict::GoOn { rejected } | Verdict::GiveUp { rejected, .. }) = verdict;
        for record in rejected {
            output::message(format_args!("image {} is rejected", image_digits(*record)));
        }
    }

    fn wait(&mut self, job: &Job, pause: Duration) -> bool {
        // Whoever wants it to stop meanwhile is told from where it will go on. If nobody knows, the attempt says why.
        let newest = job.newest().ok().flatten();
        self.session.set_origin(newest.map(|record| record.image));
        output::message(format_args!("trying again in {}", output::duration(pause)));
        let goes_on = self.session.wait(pause);
        if !goes_on {
            self.suspended = Some(self.session.suspended_before_it_ran());
        }
        goes_on
    }
}

/// A program that is ready.
pub(crate) struct ReadyToRun {
    instance: Instance,
    origin: Origin,
    /// What the output file is to be cut to.
    output_bytes: Option<u64>,
}

/// Whether these are the words of a command line of `run --continue`.
fn is_continuing(words: &[String]) -> bool {
    let words = std::iter::once("wsnap").chain(words.iter().map(String::as_str));
    match Cli::try_parse_from(words) {
        Ok(cli) => cli.run().is_some_and(Run::continues),
        Err(_) => false,
    }
}

/// The first digits of the image that a record is about.
fn image_digits(record: RecordId) -> String {
    let mut digits = record.to_string();
    digits.truncate(IMAGE_DIGITS);
    digits
}
