//! `wsnap gc`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use wsnap::snapshots::{
    Amount, Freed, GcOptions, GcReport, ImageId, KeptBecause, Retention, StoreError,
};

use crate::arguments::{Period, parse_duration};
use crate::failure::Failure;
use crate::output;
use crate::places::Places;

/// So many images that stay for now are named to people.
const KEPT_SHOWN: usize = 10;

/// Delete what nobody needs, and free its space
///
/// What stays: images that are tagged or the latest of a program, those that programs are running on, those younger
/// than the grace period, all snapshots that these came from, and all that these consist of. With --keep-last or
/// --keep-one-per, of the snapshots of each program with a name only so many stay; a tagged one always does.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wsnap gc --dry-run\n  wsnap gc --grace 1h\n  wsnap gc --keep-last 10 --keep-one-per 1h"
)]
pub(crate) struct Gc {
    /// Report what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Images that nothing points at stay for so long after they were stored
    #[arg(long, value_name = "DURATION", default_value = "14days", value_parser = parse_duration)]
    grace: Duration,
    /// Of the snapshots of each program keep the newest N, and drop the others
    #[arg(long, value_name = "N")]
    keep_last: Option<u64>,
    /// Of the snapshots of each program keep the newest of each hour, day or other period, and drop the others
    #[arg(long, value_name = "DURATION")]
    keep_one_per: Option<Period>,
    /// Print the result as JSON, with full ids
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    /// Whether nothing was deleted in truth.
    dry_run: bool,
    freed: FreedReport,
    images: Vec<String>,
    records: Vec<String>,
    live_images: u64,
    /// Images that nothing points at and that stay nevertheless, for now.
    kept: Vec<KeptReport>,
}

#[derive(Serialize)]
struct FreedReport {
    #[serde(flatten)]
    total: AmountReport,
    images: AmountReport,
    records: AmountReport,
    page_maps: AmountReport,
    layers: AmountReport,
    modules: AmountReport,
    temporary: AmountReport,
}

/// A number of files and the space that they take.
#[derive(Clone, Copy, Serialize)]
pub(in crate::commands) struct AmountReport {
    pub count: u64,
    pub bytes: u64,
}

#[derive(Serialize)]
struct KeptReport {
    image: String,
    /// `in use` or `young`.
    because: &'static str,
}

impl Gc {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        let options = GcOptions {
            dry_run: self.dry_run,
            grace: self.grace,
            retention: self.retention(),
        };
        let Some(store) = places.find_store()? else {
            return Err(Failure::new(format!(
                "there is no store in {}",
                places.store_directory()?.display()
            ))
            .hint("--store or WSNAP_STORE names another place"));
        };
        let progress = output::progress("looking for what nobody needs …".to_owned());
        let report = store.gc(&options);
        drop(progress);
        let report = report.map_err(explain)?;
        if self.json {
            output::json_result(&Report::new(&report))?;
        } else {
            self.print(&report)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn retention(&self) -> Option<Retention> {
        if self.keep_last.is_none() && self.keep_one_per.is_none() {
            return None;
        }
        Some(Retention {
            last: self.keep_last.unwrap_or(0),
            one_per: self.keep_one_per.map(|period| period.0),
        })
    }

    fn print(&self, report: &GcReport) -> Result<(), Failure> {
        let total = report.freed.total();
        let freed = if report.dry_run {
            "would free"
        } else {
            "freed"
        };
        output::result(format_args!(
            "{freed} {} in {}",
            output::bytes(total.bytes),
            output::count(total.count, "file", "files")
        ))?;
        if total.count > 0 {
            print_freed(&report.freed)?;
        }
        let live = output::count(report.live_images, "image stays", "images stay");
        output::result(live)?;
        self.print_kept(report, KeptBecause::Young)?;
        self.print_kept(report, KeptBecause::InUse)
    }

    /// Says which of the images that stay do so although nothing points at them.
    fn print_kept(&self, report: &GcReport, because: KeptBecause) -> Result<(), Failure> {
        let kept: Vec<ImageId> = report
            .kept
            .iter()
            .filter(|(_, reason)| *reason == because)
            .map(|(id, _)| *id)
            .collect();
        if kept.is_empty() {
            return Ok(());
        }
        let count = kept.len() as u64;
        let unreachable = output::count(
            count,
            "image is unreachable, but stays for now",
            "images are unreachable, but stay for now",
        );
        match because {
            KeptBecause::InUse => {
                output::result(format_args!("{unreachable}: a program is running on each"))
            }
            _ => output::result(format_args!(
                "{unreachable}: younger than the grace period of {} (--grace)",
                humantime::format_duration(self.grace)
            )),
        }?;
        for id in kept.iter().take(KEPT_SHOWN) {
            output::result(format_args!("  {}", output::short_id(*id)))?;
        }
        match kept.len().saturating_sub(KEPT_SHOWN) {
            0 => Ok(()),
            hidden => output::result(format_args!("  … and {hidden} more")),
        }
    }
}

fn explain(error: StoreError) -> Failure {
    let hides_what_is_needed = matches!(
        error,
        StoreError::Damaged { .. } | StoreError::Missing { .. }
    );
    let failure = Failure::from(error);
    if !hides_what_is_needed {
        return failure;
    }
    failure.hint(
        "nothing has been deleted, since it is unknown what is still needed; `wsnap verify` names all that is damaged, \
         `wsnap rm --force REF` removes an image that is",
    )
}

fn print_freed(freed: &Freed) -> Result<(), Failure> {
    let mut table = output::table(&["", "FILES", "SIZE"]);
    let kinds = [
        ("images", freed.images),
        ("records", freed.records),
        ("page maps", freed.page_maps),
        ("layers", freed.layers),
        ("modules", freed.modules),
        ("unfinished", freed.temporary),
    ];
    for (kind, amount) in kinds.into_iter().filter(|(_, amount)| amount.count > 0) {
        table.add_row([
            format!("  {kind}"),
            amount.count.to_string(),
            output::bytes(amount.bytes),
        ]);
    }
    output::result(table.trim_fmt())
}

impl Report {
    fn new(report: &GcReport) -> Self {
        let freed = &report.freed;
        Self {
            dry_run: report.dry_run,
            freed: FreedReport {
                total: freed.total().into(),
                images: freed.images.into(),
                records: freed.records.into(),
                page_maps: freed.page_maps.into(),
                layers: freed.layers.into(),
                modules: freed.modules.into(),
                temporary: freed.temporary.into(),
            },
            images: report.images.iter().map(ToString::to_string).collect(),
            records: report.records.iter().map(ToString::to_string).collect(),
            live_images: report.live_images,
            kept: report.kept.iter().map(KeptReport::new).collect(),
        }
    }
}

impl KeptReport {
    fn new((image, because): &(ImageId, KeptBecause)) -> Self {
        Self {
            image: image.to_string(),
            because: match because {
                KeptBecause::InUse => "in use",
                _ => "young",
            },
        }
    }
}

impl From<Amount> for AmountReport {
    fn from(amount: Amount) -> Self {
        Self {
            count: amount.count,
            bytes: amount.bytes,
        }
    }
}
