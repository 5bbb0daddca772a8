//! `wsnap inspect`.

pub(in crate::commands) mod report;
pub(in crate::commands) mod text;

use std::process::ExitCode;

use clap::Args;
use wsnap::names::Names;

use crate::failure::Failure;
use crate::output;
use crate::places::Places;
use report::Report;

/// So many frames are shown to people who didn't say how many they want.
const FRAMES_SHOWN: usize = 20;

/// Show what an image contains: call stack, memories, globals, tables, open files
///
/// The frames of the call stack are shown innermost first. Functions and locals have names if the module has a name
/// section.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wsnap inspect 3f2a9c01\n  wsnap inspect --frames 100 sim\n  wsnap inspect --json sim | jq '.frames[0].function_name'"
)]
pub(crate) struct Inspect {
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
    /// Show so many of the innermost frames [default: 20; all with --json]
    #[arg(long, value_name = "N")]
    frames: Option<usize>,
    /// The image: an id, the first digits of one, a tag, or a program's name (its latest image)
    #[arg(value_name = "REF")]
    reference: String,
}

impl Inspect {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        let (store, id) = places.resolve(&self.reference)?;
        let image = store.load(id)?;
        // Names are a help: without its module an image is still worth looking at.
        let names = match store.module(image.manifest().module) {
            Ok(wasm) => Names::parse(&wasm),
            Err(_) => Names::default(),
        };
        let all = if self.json { usize::MAX } else { FRAMES_SHOWN };
        let mut report = Report::new(&image, &names, self.frames.unwrap_or(all))?;
        // Without its records, too, it can be looked at.
        let (records, _) = store.readable_records()?;
        let rejections = records.into_iter().filter(|record| record.image == id);
        report.rejected = rejections.filter_map(|record| record.rejected).collect();
        if self.json {
            output::json_result(&report)?;
        } else {
            output::result(output::printable(&text::Text(&report).to_string()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
