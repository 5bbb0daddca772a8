//! The flags that `run` and `resume` share.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use wsnap_supervision::Pace;

use super::SUSPENDED;
use crate::arguments::{Label, Period, Trigger, parse_duration};
use crate::limits::LimitArgs;

/// How long storing the last image may take after a signal, where somebody has to be quick: less than what schedulers
/// allow by default.
const GRACE: Duration = Duration::from_secs(20);

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
    /// Write the program's standard output to this file, which is cut back when the program goes on from an older image: in
    /// the end it is as if the program had never been disturbed
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Exit with this code when the program has been suspended
    #[arg(long, value_name = "CODE", default_value_t = SUSPENDED)]
    pub suspended_exit_code: u8,
    /// Report a suspension as one line of JSON on standard error
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub saving: SavingArgs,
    #[command(flatten)]
    pub slots: SlotArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// When images are taken by themselves.
#[derive(Debug, Args)]
#[command(next_help_heading = "Saving")]
pub(crate) struct SavingArgs {
    /// Take an image at this interval, such as 15s, while the program goes on. None is taken while the program only waits
    #[arg(long, value_name = "DURATION")]
    pub every: Option<Period>,
    /// Take images less often if taking them would need more than so many percent of the time
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = 10,
        value_parser = clap::value_parser!(u8).range(1..=100),
        requires = "every"
    )]
    pub max_saving: u8,
    /// Keep so many of the images that --every takes of a program with a name, and remove older ones
    #[arg(long, value_name = "N", default_value_t = 10, requires = "every")]
    pub keep_saved: u32,
    /// When SIGINT or SIGTERM come, have the last image stored within this time, or do without it and end: the program then
    /// goes on from the image before [default: 20s with --continue; else as long as it takes]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    grace: Option<Duration>,
}

impl SavingArgs {
    /// How often to save, if at all.
    pub fn pace(&self) -> Option<Pace> {
        let interval = self.every?.0;
        Some(Pace {
            interval,
            max_share: f64::from(self.max_saving) / 100.0,
        })
    }

    /// How long the last image may take, if that is limited.
    pub fn grace(&self, continues: bool) -> Option<Duration> {
        self.grace.or(continues.then_some(GRACE))
    }
}

/// Sharing a machine with other programs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sharing slots")]
pub(crate) struct SlotArgs {
    /// Run only while the program has one of the slots of this directory (`wsnap slots` makes it), and make room for more
    /// urgent programs: the program is suspended and stored, waits, and goes on when there is room
    #[arg(long = "slots", value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// How urgent the program is: the higher, the more
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true,
        requires = "directory"
    )]
    pub priority: i32,
}

impl Options {
    /// Whether the program is compiled so that its safepoints can be counted, which makes it slower.
    pub fn counts_safepoints(&self) -> bool {
        matches!(self.stop_at, Some(Trigger::Safepoint(2..)))
    }
}
