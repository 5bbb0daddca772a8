//! `wsnap diff`.

mod memory;
mod report;
mod text;

use std::process::ExitCode;

use clap::Args;
use wsnap::names::Names;

use crate::failure::Failure;
use crate::output;
use crate::places::Places;
use report::Report;

/// Show what changed between two images of one module
///
/// Compares memories page by page (4096 bytes), globals, tables, the call stack, open files and clocks. Of the
/// memories only those parts are read whose hashes differ.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wsnap diff before-upgrade sim\n  wsnap diff --json 3f2a9c01 77d0 | jq '.memories[0].changed_pages'"
)]
pub(crate) struct Diff {
    /// Print everything as JSON, with all stretches of memory
    #[arg(long)]
    json: bool,
    /// The older image: an id, the first digits of one, a tag, or a program's name (its latest image)
    #[arg(value_name = "A")]
    old: String,
    /// The newer image
    #[arg(value_name = "B")]
    new: String,
}

impl Diff {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        let (store, old) = places.resolve(&self.old)?;
        let (_, new) = places.resolve(&self.new)?;
        let old = store.load(old)?;
        let new = store.load(new)?;
        let modules = [old.manifest().module, new.manifest().module];
        if modules[0] != modules[1] {
            return Err(Failure::new(format!(
                "the images are of different modules: {} of {}, {} of {}",
                output::short_id(old.id()),
                modules[0],
                output::short_id(new.id()),
                modules[1],
            ))
            .hint("`wsnap inspect` shows what each of them contains"));
        }
        // Names are a help: without its module an image is still worth looking at.
        let names = store
            .module(modules[0])
            .map_or_else(|_| Names::default(), |wasm| Names::parse(&wasm));
        let progress = output::progress("comparing memories …".to_owned());
        let report = Report::new(&old, &new, &names);
        drop(progress);
        let report = report?;
        if self.json {
            output::json_result(&report)?;
        } else {
            output::result(output::printable(&text::Text(&report).to_string()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
