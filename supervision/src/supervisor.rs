//! Runs a program again and again until it comes to an end.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use wsnap::Outcome;
use wsnap::snapshots::StoreError;

use crate::backoff::Backoff;
use crate::job::{Attempt, Job};
use crate::journal::{DEFAULT_WINDOW, Death, Kind, Verdict};
use crate::keeper::unix_ms;

/// How a program is kept running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether a program that has died is tried again here; if not, whoever runs the job the next time does.
    pub restart: bool,
    /// How soon after a resume a crash tells against the image, and how near two crashes are that count as the same one.
    pub window: Duration,
    /// The pauses before each next attempt.
    pub backoff: Backoff,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            restart: true,
            window: DEFAULT_WINDOW,
            backoff: Backoff::default(),
        }
    }
}

/// How an attempt ended.
#[derive(Debug)]
pub enum End<T> {
    /// The program has come to its end.
    Finished(T),
    /// The program was stopped, and is to go on later from its latest image.
    Stopped(T),
    /// The program died.
    Died {
        /// What whoever runs it is told if it is not tried again.
        output: T,
        /// What happened, for people.
        reason: String,
        /// How long this attempt ran, if that is not all the time since it was prepared.
        ran: Option<Duration>,
    },
    /// The time that the program may take here is up. It is not tried again before somebody runs its job the next time.
    OutOfTime {
        /// What whoever runs it is told.
        output: T,
        /// What happened, for people.
        reason: String,
        /// As above.
        ran: Option<Duration>,
    },
}

impl End<Outcome> {
    /// A trap is a death, and every exit an end.
    pub fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Suspended(_) => Self::Stopped(outcome),
            Outcome::Trapped(ref trap) => Self::Died {
                reason: trap.to_string(),
                output: outcome,
                ran: None,
            },
            Outcome::Returned(_) | Outcome::Exited(_) => Self::Finished(outcome),
        }
    }
}

/// Whoever knows how to start the program.
pub trait Host {
    /// A program that is ready to run.
    type Ready;
    /// What comes of running it.
    type Output;
    /// Why it cannot be run, when that is not the program's own fault.
    type Error: From<StoreError>;

    /// Starts or resumes the program, up to where it would run; none if it is not to run now, which ends the supervision and
    /// counts for nothing.
    ///
    /// # Errors
    ///
    /// They end the supervision, and count for nothing.
    fn prepare(&mut self, attempt: &Attempt) -> Result<Option<Self::Ready>, Self::Error>;

    /// Runs it to its end. The job wants to know of times in between at which it stands still, stored.
    ///
    /// # Errors
    ///
    /// They end the supervision, and count for nothing.
    fn run(&mut self, ready: Self::Ready, job: &mut Job) -> Result<End<Self::Output>, Self::Error>;

    /// The program has died, and this follows.
    fn died(&mut self, _death: &Death, _verdict: &Verdict) {}

    /// Waits before the next attempt of the job's program, and says whether there is to be one now.
    fn wait(&mut self, _job: &Job, pause: Duration) -> bool {
        thread::sleep(pause);
        true
    }
}

/// How it all ended.
#[derive(Debug)]
pub struct Finish<T> {
    /// What came of the last attempt; none if there was none.
    pub output: Option<T>,
    /// Why the program is not tried any more, if it was given up.
    pub given_up: Option<String>,
    /// The program's name is this process's until this is dropped.
    pub job: Job,
}

/// Keeps the program of a job running.
#[derive(Debug)]
pub struct Supervisor {
    job: Job,
    options: Options,
}

impl Supervisor {
    /// Of this job. Who wants to start it from the beginning, rather than to go on, says so to the job before.
    pub fn new(job: Job, options: Options) -> Self {
        Self { job, options }
    }

    /// Runs the program until it ends, is stopped, or is given up.
    ///
    /// # Errors
    ///
    /// What the host says, or the store.
    pub fn run<H: Host>(mut self, host: &mut H) -> Result<Finish<H::Output>, H::Error> {
        let window = self.options.window;
        if let Some((death, verdict)) = self.job.recover(window)? {
            host.died(&death, &verdict);
        }
        let mut output = None;
        loop {
            if self.job.journal().given_up().is_some() {
                return Ok(self.finish(output));
            }
            let pause = self.pause();
            if !pause.is_zero() && !host.wait(&self.job, pause) {
                return Ok(self.finish(output));
            }
            let attempt = self
                .job
                .next(window, |death, verdict| host.died(death, verdict))?;
            let Some(ready) = host.prepare(&attempt)? else {
                return Ok(self.finish(output));
            };
            self.job.begin(&attempt)?;
            let since = Instant::now();
            let end = match host.run(ready, &mut self.job) {
                Ok(end) => end,
                Err(error) => {
                    self.job.stopped()?;
                    return Err(error);
                }
            };
            match end {
                End::Finished(last) => {
                    self.job.finished()?;
                    return Ok(self.finish(Some(last)));
                }
                End::Stopped(last) => {
                    self.job.stopped()?;
                    return Ok(self.finish(Some(last)));
                }
                End::Died {
                    output: last,
                    reason,
                    ran,
                } => {
                    output = Some(last);
                    let ran = ran.unwrap_or_else(|| since.elapsed());
                    self.died(host, Kind::Crash, reason, ran)?;
                    if !self.options.restart {
                        return Ok(self.finish(output));
                    }
                }
                End::OutOfTime {
                    output: last,
                    reason,
                    ran,
                } => {
                    let ran = ran.unwrap_or_else(|| since.elapsed());
                    self.died(host, Kind::OutOfTime, reason, ran)?;
                    return Ok(self.finish(Some(last)));
                }
            }
        }
    }

    fn died<H: Host>(
        &mut self,
        host: &mut H,
        kind: Kind,
        reason: String,
        ran: Duration,
    ) -> Result<(), StoreError> {
        let ran_ms = u64::try_from(ran.as_millis()).unwrap_or(u64::MAX);
        let death = Death::new(kind, reason, now_ms(), ran_ms);
        let verdict = self.job.died(death.clone(), self.options.window)?;
        host.died(&death, &verdict);
        Ok(())
    }

    fn finish<T>(self, output: Option<T>) -> Finish<T> {
        Finish {
            output,
            given_up: self.job.journal().given_up().map(str::to_owned),
            job: self.job,
        }
    }

    /// How long the next attempt has to wait: less if time has passed since the last one died.
    fn pause(&self) -> Duration {
        let journal = self.job.journal();
        let Some(last) = journal.deaths().last() else {
            return Duration::ZERO;
        };
        let pause = self.options.backoff.pause(journal.failures());
        let passed = Duration::from_millis(now_ms().saturating_sub(last.at_ms));
        pause.saturating_sub(passed)
    }
}

fn now_ms() -> u64 {
    unix_ms(SystemTime::now())
}
