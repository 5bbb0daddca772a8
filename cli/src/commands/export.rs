//! `wsnap export`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use wsnap::snapshots::{ExportError, ExportOptions, Exported, ImageId, Store};

use crate::failure::Failure;
use crate::output::{self, BytesProgress};
use crate::places::Places;

/// Standard output, in place of a file.
const STANDARD_OUTPUT: &str = "-";

/// Write images with everything that they need into one file
///
/// The file holds the programs' memories with all secrets in them, and their modules; it is compressed, and `wsnap
/// import` checks every byte of it. What images have in common is in it once. An image that is named by its program's
/// name takes the name along.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wsnap export sim sim.wsnap\n  wsnap export --ancestors --level 19 before-upgrade sim archive.wsnap\n  wsnap export sim - | ssh host wsnap import -"
)]
pub(crate) struct Export {
    /// Take along the snapshots that the images came from, and when, why and from what each was taken
    #[arg(long)]
    ancestors: bool,
    /// How hard to compress, from 1 (fast) to 22 (small)
    #[arg(long, value_name = "N", default_value_t = ExportOptions::default().level,
        value_parser = clap::value_parser!(i32).range(1..=22))]
    level: i32,
    /// Print what was exported as JSON (to standard error if the images go to standard output)
    #[arg(long)]
    json: bool,
    /// The images: ids, the first digits of some, tags, or programs' names (their latest images)
    #[arg(value_name = "REF", required = true)]
    references: Vec<String>,
    /// The file, which is replaced if it exists, or `-` for standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Serialize)]
struct Report {
    images: Vec<String>,
    records: u64,
    /// Before compression.
    content_bytes: u64,
    stream_bytes: u64,
}

impl Export {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        let to_output = self.file.as_os_str() == STANDARD_OUTPUT;
        if to_output && io::stdout().is_terminal() {
            return Err(
                Failure::new("an export is not text: a terminal cannot show it").hint(
                    "name a file, or pipe it: `wsnap export REF - | ssh host wsnap import -`",
                ),
            );
        }
        let job = self.job(places)?;
        let exported = if to_output {
            job.write(&mut io::stdout().lock(), "standard output")?
        } else {
            job.write_file(&self.file)?
        };
        self.report(&exported, to_output)?;
        Ok(ExitCode::SUCCESS)
    }

    /// The images, with the names of programs among the references to them.
    fn job(&self, places: &Places) -> Result<Job, Failure> {
        let (store, _) = places.resolve(&self.references[0])?;
        let known = store.names()?;
        let mut ids = Vec::new();
        let mut names = BTreeMap::new();
        for reference in &self.references {
            let id = store.resolve(reference)?;
            ids.push(id);
            if known.get(reference) == Some(&id) {
                names.insert(reference.clone(), id);
            }
        }
        let options = ExportOptions {
            ancestors: self.ancestors,
            level: self.level,
            names,
        };
        Ok(Job {
            store,
            ids,
            options,
        })
    }

    fn report(&self, exported: &Exported, to_output: bool) -> Result<(), Failure> {
        let report = Report {
            images: exported.images.iter().map(ToString::to_string).collect(),
            records: exported.records,
            content_bytes: exported.content_bytes,
            stream_bytes: exported.stream_bytes,
        };
        match (self.json, to_output) {
            (true, true) => output::json_message(&report),
            (true, false) => output::json_result(&report)?,
            (false, _) => output::message(format_args!(
                "exported {}: {}, compressed to {}",
                output::count(report.images.len() as u64, "image", "images"),
                output::bytes(report.content_bytes),
                output::bytes(report.stream_bytes)
            )),
        }
        Ok(())
    }
}

/// What is to be exported.
struct Job {
    store: Store,
    ids: Vec<ImageId>,
    options: ExportOptions,
}

impl Job {
    fn write(&self, to: &mut dyn Write, name: &str) -> Result<Exported, Failure> {
        let progress = BytesProgress::new("exporting", None);
        let mut to = BufWriter::new(to);
        let result = self
            .store
            .export(&self.ids, &self.options, &mut to, |done| {
                progress.set(done.content_bytes);
            });
        drop(progress);
        let failed = |error: &io::Error| Failure::io("write the export to", Path::new(name), error);
        let exported = result.map_err(|error| match error {
            ExportError::Write(error) => failed(&error),
            // Its own hint fits better than one for exports.
            ExportError::Store(error) => error.into(),
            error => error.into(),
        })?;
        to.flush().map_err(|error| failed(&error))?;
        Ok(exported)
    }

    /// Writes a file beside the one that is meant, and gives it the name when it is complete and durable, so that no
    /// half of an export ever has it.
    fn write_file(&self, path: &Path) -> Result<Exported, Failure> {
        let failed = |operation| move |error: io::Error| Failure::io(operation, path, &error);
        let name = path.display().to_string();
        let target = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(Failure::new(format!("{name} is a directory"))
                    .hint("name the file that is to be written"));
            }
            // Pipes and devices cannot be replaced.
            Ok(metadata) if !metadata.is_file() => {
                let mut file = File::options()
                    .write(true)
                    .open(path)
                    .map_err(failed("open"))?;
                return self.write(&mut file, &name);
            }
            // What a link points at is replaced, not the link.
            Ok(_) => fs::canonicalize(path).map_err(failed("find"))?,
            Err(_) => path.to_owned(),
        };
        let folder = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut staged = tempfile::Builder::new()
            .prefix(".wsnap-export-")
            .tempfile_in(folder)
            .map_err(failed("write"))?;
        let exported = self.write(staged.as_file_mut(), &name)?;
        staged.as_file().sync_all().map_err(failed("sync"))?;
        staged
            .persist(&target)
            .map_err(|error| failed("write")(error.error))?;
        let folder = File::open(folder).and_then(|folder| folder.sync_all());
        folder.map_err(failed("sync the directory of"))?;
        Ok(exported)
    }
}
