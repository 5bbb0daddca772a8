//! What is remembered of a program that is kept running, and the rules for what to try after it died.
//!
//! Nothing here reads a clock or a disk. `JOURNAL.md` beside this crate says the same for people, and why.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wsnap::snapshots::{ImageId, Record, RecordId};

/// How near two crashes are that count as the same one, and how soon after a resume a crash tells against the image.
pub const DEFAULT_WINDOW: Duration = Duration::from_secs(10);
/// So many times a program is tried at least, one after the other and without getting any further, before it is given up.
pub const ATTEMPTS_MIN: u32 = 7;
/// A program that has died so often without getting beyond where it died is tried from the beginning once more and then given up,
/// wherever each time was.
pub const DEATHS_MAX: u32 = 50;
/// An image from which so many attempts in a row ended with their process, none of which left a newer one, is rejected; the
/// next one after twice as many, and so on.
pub const UNKNOWN_DEATHS: u32 = 3;
/// So many records of earlier runs are remembered: whoever removes more than that of a program's newest images by hand, and
/// then lets it go on, gets one of those runs.
pub(crate) const SCRATCH_RECORDS_MAX: usize = 1000;
/// So many deaths are kept for reports.
const DEATHS_KEPT: usize = 100;
/// A reason is cut to so many characters: it can be a backtrace.
const REASON_CHARS_MAX: usize = 300;

/// What is remembered of one program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Journal {
    /// What there was of the program when it was last started from the beginning: that belongs to another run of it.
    pub(crate) scratch: Option<Scratch>,
    /// The attempt that is being made, or that ended with its process.
    pub(crate) attempt: Option<OpenAttempt>,
    /// How often the program has been resumed since it was last started from the beginning.
    pub(crate) resumes: u64,
    /// Attempts in a row that ended with their process, all from the same place.
    pub(crate) unknown_deaths: u32,
    /// How many times a snapshot was rejected for them, since an attempt left a newer one.
    pub(crate) unknown_rejections: u32,
    trouble: Option<Trouble>,
    deaths: Vec<Death>,
    /// Why nothing is tried any more.
    given_up: Option<String>,
    /// When the program came to its end, if nothing has been tried since.
    finished_at_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scratch {
    /// The image that the program's name pointed at.
    pub head: Option<ImageId>,
    pub at_ms: u64,
    /// The newest records of the program, no more than [`SCRATCH_RECORDS_MAX`].
    #[serde(default)]
    pub records: Vec<RecordId>,
}

impl Scratch {
    /// Whether a snapshot of the program is one of a run before.
    pub fn is_before(&self, record: &Record) -> bool {
        let is_head = self.head == Some(record.image) && record.taken_at_ms < self.at_ms;
        is_head || self.records.contains(&record.id)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenAttempt {
    /// None for the beginning.
    pub from: Option<RecordId>,
    /// How old the program was there, in milliseconds that it had run.
    pub from_age_ms: u64,
    pub started_at_ms: u64,
}

/// The program has crashed and has not run past that place since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Trouble {
    /// How old it was when it crashed last.
    last_ms: u64,
    /// The oldest that it was at any of these crashes.
    high_ms: u64,
    crashes: u32,
    /// How many of them tell against a start from the beginning.
    scratch_crashes: u32,
}

/// How an attempt ended that did not come to an end of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It trapped, reached a limit, or ended itself with a failure where that counts.
    Crash,
    /// The time that it may take was up.
    OutOfTime,
    /// Its image is damaged or missing.
    Image,
    /// It ended with its process: killed, or the machine went down. Nobody knows when.
    Unknown,
}

/// That an attempt died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// In which way.
    pub kind: Kind,
    /// What happened, for people.
    pub reason: String,
    /// When that was noticed, in milliseconds since the start of 1970 (UTC).
    pub at_ms: u64,
    /// How long this attempt ran, in milliseconds; 0 if nobody knows.
    pub ran_ms: u64,
    /// What it went on from; none for the beginning.
    #[serde(default)]
    pub from: Option<RecordId>,
    /// The snapshots that are rejected for it.
    #[serde(default)]
    pub rejected: Vec<RecordId>,
}

impl Death {
    /// A death that is noticed now.
    pub fn new(kind: Kind, reason: impl Into<String>, at_ms: u64, ran_ms: u64) -> Self {
        let mut reason: String = reason.into();
        if let Some((end, _)) = reason.char_indices().nth(REASON_CHARS_MAX) {
            reason.truncate(end);
            reason.push('…');
        }
        Self {
            kind,
            reason,
            at_ms,
            ran_ms,
            from: None,
            rejected: Vec::new(),
        }
    }
}

/// A snapshot that the program could go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// Its record.
    pub record: RecordId,
    /// How old the program was, in milliseconds that it had run.
    pub age_ms: u64,
}

/// What follows from a death.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The program goes on from the newest snapshot that is not rejected, or from the beginning if there is none. These are
    /// rejected now.
    GoOn {
        /// The newest first.
        rejected: Vec<RecordId>,
    },
    /// Nothing is tried any more.
    GiveUp {
        /// As above.
        rejected: Vec<RecordId>,
        /// Why, for people.
        reason: String,
    },
}

impl Journal {
    /// Why the program has been given up, if it has.
    pub fn given_up(&self) -> Option<&str> {
        self.given_up.as_deref()
    }

    /// When the program came to its end, in milliseconds since the start of 1970 (UTC), if nothing has been tried since.
    pub fn finished_at_ms(&self) -> Option<u64> {
        self.finished_at_ms
    }

    /// The program has come to its end: all that there is of it belongs to a run that is over.
    pub(crate) fn finished(scratch: Scratch) -> Self {
        Self {
            finished_at_ms: Some(scratch.at_ms),
            scratch: Some(scratch),
            ..Self::default()
        }
    }

    /// The latest deaths, oldest first.
    pub fn deaths(&self) -> &[Death] {
        &self.deaths
    }

    /// How often the program has died in a row without getting any further: what the pause before the next attempt
    /// depends on.
    pub fn failures(&self) -> u32 {
        let crashes = self.trouble.map_or(0, |trouble| trouble.crashes);
        crashes.max(self.unknown_deaths)
    }

    /// An attempt begins, from a snapshot or from the beginning.
    pub fn begin(&mut self, from: Option<Ancestor>, at_ms: u64) {
        self.goes_on(from, at_ms);
        if from.is_some() {
            self.resumes = self.resumes.saturating_add(1);
        }
    }

    /// The program, which has been stopped, runs again where it stands, which is where its latest snapshot was taken.
    pub fn goes_on(&mut self, from: Option<Ancestor>, at_ms: u64) {
        self.finished_at_ms = None;
        self.attempt = Some(OpenAttempt {
            from: from.map(|from| from.record),
            from_age_ms: from.map_or(0, |from| from.age_ms),
            started_at_ms: at_ms,
        });
    }

    /// The attempt is over, and the program is to go on later from where it is.
    pub fn stopped(&mut self) {
        self.attempt = None;
        self.forget_unknown_deaths();
    }

    fn forget_unknown_deaths(&mut self) {
        self.unknown_deaths = 0;
        self.unknown_rejections = 0;
    }

    /// The attempt that was being made is dead. `ancestors` are the snapshots that it could go on from, none of them
    /// rejected, newest first; `window` says which crashes count as the same.
    pub fn died(&mut self, mut death: Death, ancestors: &[Ancestor], window: Duration) -> Verdict {
        let attempt = self.attempt.take().unwrap_or(OpenAttempt {
            from: None,
            from_age_ms: 0,
            started_at_ms: death.at_ms,
        });
        death.from = attempt.from;
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        let verdict = match death.kind {
            Kind::Unknown => self.vanished(attempt, ancestors),
            Kind::Image => Verdict::GoOn {
                rejected: up_to(attempt.from, ancestors),
            },
            // Whoever set the limit knows what it says about the program.
            Kind::OutOfTime => {
                self.forget_unknown_deaths();
                Verdict::GoOn {
                    rejected: Vec::new(),
                }
            }
            Kind::Crash => self.crashed(attempt, death.ran_ms, ancestors, window_ms),
        };
        let (Verdict::GoOn { rejected } | Verdict::GiveUp { rejected, .. }) = &verdict;
        death.rejected.clone_from(rejected);
        if let Verdict::GiveUp { reason, .. } = &verdict {
            self.given_up = Some(reason.clone());
        }
        self.deaths.push(death);
        let surplus = self.deaths.len().saturating_sub(DEATHS_KEPT);
        self.deaths.drain(..surplus);
        verdict
    }

    /// A process that is gone says nothing about the program, unless that happens again and again.
    fn vanished(&mut self, attempt: OpenAttempt, ancestors: &[Ancestor]) -> Verdict {
        if has_progressed(attempt, ancestors) {
            self.forget_unknown_deaths();
            return Verdict::GoOn {
                rejected: Vec::new(),
            };
        }
        self.unknown_deaths = self.unknown_deaths.saturating_add(1);
        let mut rejected = Vec::new();
        // A machine that goes down again and again must not drive a program back to its beginning.
        let doubled = 1u32.checked_shl(self.unknown_rejections);
        let limit = doubled.map_or(u32::MAX, |doubled| UNKNOWN_DEATHS.saturating_mul(doubled));
        if self.unknown_deaths >= limit && attempt.from.is_some() {
            rejected = up_to(attempt.from, ancestors);
            self.unknown_deaths = 0;
            self.unknown_rejections = self.unknown_rejections.saturating_add(1);
        }
        Verdict::GoOn { rejected }
    }

    fn crashed(
        &mut self,
        attempt: OpenAttempt,
        ran_ms: u64,
        ancestors: &[Ancestor],
        window_ms: u64,
    ) -> Verdict {
        self.forget_unknown_deaths();
        let age_ms = attempt.from_age_ms.saturating_add(ran_ms);
        let is_soon = ran_ms < window_ms && !has_progressed(attempt, ancestors);
        let is_past = |trouble: &Trouble| age_ms > trouble.high_ms.saturating_add(window_ms);
        let Some(before) = self.trouble.filter(|trouble| !is_past(trouble)) else {
            self.trouble = Some(Trouble {
                last_ms: age_ms,
                high_ms: age_ms,
                crashes: 1,
                scratch_crashes: u32::from(attempt.from.is_none() && is_soon),
            });
            return Verdict::GoOn {
                rejected: Vec::new(),
            };
        };
        let is_same_place = age_ms.abs_diff(before.last_ms) <= window_ms;
        let counts = is_soon || is_same_place;
        let trouble = Trouble {
            last_ms: age_ms,
            high_ms: before.high_ms.max(age_ms),
            crashes: before.crashes.saturating_add(1),
            scratch_crashes: before
                .scratch_crashes
                .saturating_add(u32::from(counts && attempt.from.is_none())),
        };
        self.trouble = Some(trouble);
        let rejected = match counts {
            true => up_to(attempt.from, ancestors),
            false => Vec::new(),
        };
        let from_the_beginning = attempt.from.is_none();
        if trouble.crashes >= DEATHS_MAX {
            if !from_the_beginning {
                // With so many snapshots it would take as many attempts again to get there.
                return Verdict::GoOn {
                    rejected: up_to(None, ancestors),
                };
            }
            let reason = format!(
                "it has crashed {} times without getting further than before, the last time after a start from the beginning",
                trouble.crashes
            );
            return Verdict::GiveUp { rejected, reason };
        }
        if counts && from_the_beginning && trouble.crashes >= ATTEMPTS_MIN {
            let reason = format!(
                "it has crashed {} times without getting further, the last time after a start from the beginning",
                trouble.crashes
            );
            return Verdict::GiveUp { rejected, reason };
        }
        Verdict::GoOn { rejected }
    }
}

/// Whether an attempt has left a newer snapshot than the one that it went on from.
fn has_progressed(attempt: OpenAttempt, ancestors: &[Ancestor]) -> bool {
    ancestors.first().map(|newest| newest.record) != attempt.from
}

/// The snapshots from the newest to the one that an attempt went on from: all if that was the beginning.
fn up_to(from: Option<RecordId>, ancestors: &[Ancestor]) -> Vec<RecordId> {
    let records = ancestors.iter().map(|ancestor| ancestor.record);
    let place = records.clone().position(|record| Some(record) == from);
    match (place, from) {
        (Some(place), _) => records.take(place + 1).collect(),
        (None, None) => records.collect(),
        // It is not one of those that are left.
        (None, Some(_)) => Vec::new(),
    }
}
