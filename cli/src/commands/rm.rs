//! `wsnap rm`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use wsnap::snapshots::{ImageId, Removed, Store, StoreError};

use crate::failure::Failure;
use crate::output;
use crate::places::Places;

/// Remove images
///
/// Snapshots that came from a removed one stay, and so does everything that they need. The space that only the removed
/// images needed is freed by `wsnap gc`. An image that a program is running on is never removed; one that is tagged, or
/// the latest of a program, only with --force.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wsnap rm 3f2a9c01 77d0\n  wsnap rm --force before-upgrade")]
pub(crate) struct Rm {
    /// Remove tags of the images too, and make programs whose latest image one is fall back to the one before
    #[arg(long, short)]
    force: bool,
    /// Print what was removed as JSON
    #[arg(long)]
    json: bool,
    /// The images: ids, the first digits of some, tags, or programs' names (their latest images)
    #[arg(value_name = "REF", required = true)]
    references: Vec<String>,
}

#[derive(Serialize)]
struct Report {
    image: String,
    records: Vec<String>,
    tags: Vec<String>,
    /// Programs whose latest image this was, each with the one that is the latest now.
    names: BTreeMap<String, Option<String>>,
}

impl Rm {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        let (store, ids) = self.resolve(places)?;
        let mut reports = Vec::new();
        let mut failures = Vec::new();
        for id in ids {
            match store.remove_image(id, self.force) {
                Ok(removed) => {
                    let report = Report::new(id, removed);
                    if !self.json {
                        report.print()?;
                    }
                    reports.push(report);
                }
                Err(error) => failures.push(explain(error)),
            }
        }
        if self.json {
            output::json_result(&reports)?;
        } else if !reports.is_empty() {
            output::hint("`wsnap gc` frees the space that nothing else needs");
        }
        let last = failures.pop();
        failures.iter().for_each(Failure::print);
        last.map_or(Ok(ExitCode::SUCCESS), Err)
    }

    /// Finds all images before anything is removed, so that a mistyped one changes nothing.
    fn resolve(&self, places: &Places) -> Result<(Store, Vec<ImageId>), Failure> {
        let mut ids = Vec::new();
        for reference in &self.references {
            let id = match places.resolve(reference) {
                Ok((_, id)) => id,
                // What is left of an image whose file is missing can be removed by its full id.
                Err(failure) => reference.parse().map_err(|_| failure)?,
            };
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        match places.find_store()? {
            Some(store) => Ok((store, ids)),
            None => Err(StoreError::NotFound {
                reference: self.references.join(" "),
                store: places.store_directory()?,
            }
            .into()),
        }
    }
}

fn explain(error: StoreError) -> Failure {
    let hint = match &error {
        StoreError::InUse { .. } => Some("`wsnap ps` lists the running programs"),
        StoreError::Referenced { .. } => Some(
            "`wsnap tag --delete TAG` removes only a tag; `wsnap rm --force` removes the image with its tags",
        ),
        StoreError::Missing { what: "image", .. } => {
            Some("`wsnap ls` lists the images of the store")
        }
        StoreError::Damaged { .. } => Some(
            "`wsnap verify` names all that is damaged; nothing is removed as long as it is unknown what refers to what",
        ),
        _ => None,
    };
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

impl Report {
    fn new(id: ImageId, removed: Removed) -> Self {
        let names = removed.names.into_iter();
        Self {
            image: id.to_string(),
            records: removed.records.iter().map(ToString::to_string).collect(),
            tags: removed.tags,
            names: names
                .map(|(name, latest)| (name, latest.map(|id| id.to_string())))
                .collect(),
        }
    }

    fn print(&self) -> Result<(), Failure> {
        output::result(format_args!("removed {}", self.image))?;
        if !self.tags.is_empty() {
            output::result(format_args!("  with the tags {}", self.tags.join(", ")))?;
        }
        for (name, latest) in &self.names {
            match latest {
                Some(latest) => {
                    output::result(format_args!("  the latest of {name} is now {latest}"))
                }
                None => output::result(format_args!("  {name} has no image any more")),
            }?;
        }
        Ok(())
    }
}
