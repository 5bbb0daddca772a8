//! `wsnap stats`.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use wsnap::snapshots::Statistics;

use crate::commands::gc::AmountReport;
use crate::failure::Failure;
use crate::output;
use crate::places::Places;

/// Show how much the store holds, and what images save by sharing
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wsnap stats\n  wsnap stats --json | jq .sharing_factor")]
pub(crate) struct Stats {
    /// Print the figures as JSON, all sizes in bytes
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    images: AmountReport,
    records: AmountReport,
    page_maps: AmountReport,
    layers: AmountReport,
    modules: AmountReport,
    /// What all files of the store take on disk.
    disk_bytes: u64,
    /// The sizes of the memories of all images.
    memory_bytes: u64,
    /// What the pages that are not zero would take if each image had its own.
    unshared_bytes: u64,
    /// How many times the space of the layers that is.
    sharing_factor: f64,
    /// What lies in layers and no image shows any more.
    hidden_bytes: u64,
    /// What `wsnap gc` would delete.
    garbage: AmountReport,
}

impl Stats {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        let statistics = match places.find_store()? {
            Some(store) => {
                let _progress = output::progress("counting …".to_owned());
                store.statistics()?
            }
            None => Statistics::default(),
        };
        let report = Report::new(&statistics);
        if self.json {
            output::json_result(&report)?;
        } else {
            report.print()?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Report {
    fn new(statistics: &Statistics) -> Self {
        Self {
            images: statistics.images.into(),
            records: statistics.records.into(),
            page_maps: statistics.page_maps.into(),
            layers: statistics.layers.into(),
            modules: statistics.modules.into(),
            disk_bytes: statistics.disk_bytes,
            memory_bytes: statistics.memory_bytes,
            unshared_bytes: statistics.unshared_bytes,
            sharing_factor: statistics.sharing_factor(),
            hidden_bytes: statistics.hidden_bytes,
            garbage: statistics.garbage.into(),
        }
    }

    fn print(&self) -> Result<(), Failure> {
        let mut table = output::table(&["", "FILES", "SIZE"]);
        let kinds = [
            ("images", self.images),
            ("records", self.records),
            ("page maps", self.page_maps),
            ("layers", self.layers),
            ("modules", self.modules),
        ];
        for (kind, amount) in kinds {
            table.add_row([
                kind.to_owned(),
                amount.count.to_string(),
                output::bytes(amount.bytes),
            ]);
        }
        output::result(table.trim_fmt())?;
        let lines = [
            ("on disk", output::bytes(self.disk_bytes)),
            ("memories of all images", output::bytes(self.memory_bytes)),
            (
                "their pages, if each image had its own",
                output::bytes(self.unshared_bytes),
            ),
            (
                "sharing saves",
                format!("a factor of {:.1} in layers", self.sharing_factor),
            ),
            ("hidden by newer layers", output::bytes(self.hidden_bytes)),
            (
                "garbage that `wsnap gc` deletes",
                output::bytes(self.garbage.bytes),
            ),
        ];
        output::result("")?;
        for (what, figure) in lines {
            output::result(format_args!("{what:<39} {figure}"))?;
        }
        Ok(())
    }
}
