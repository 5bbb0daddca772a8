//! `wsnap import`.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use wsnap::snapshots::{ImageId, ImportError, ImportOptions, Imported, Store, check_name};

use crate::failure::Failure;
use crate::output::{self, BytesProgress};
use crate::places::{self, Places};

/// Standard input, in place of a file.
const STANDARD_INPUT: &str = "-";

/// Take in images that `wsnap export` has written, and print their ids
///
/// Every byte is checked before anything is stored. Names of programs that come along are given to their images unless
/// they are taken here.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wsnap import sim.wsnap\n  wsnap export sim - | ssh host wsnap import --tag moved -\n  wsnap resume \"$(wsnap import sim.wsnap)\""
)]
pub(crate) struct Import {
    /// Give the image a tag; the file must hold just one image, ancestors aside
    #[arg(long)]
    tag: Option<String>,
    /// Print what was imported as JSON
    #[arg(long)]
    json: bool,
    /// The file, or `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Serialize)]
struct Report {
    /// Those that the export was made for.
    images: Vec<String>,
    /// Those that the store did not have before, ancestors included.
    new_images: Vec<String>,
    new_records: u64,
    /// The names of programs that came along, given or not.
    names: Vec<NameReport>,
    tag: Option<String>,
    stream_bytes: u64,
    /// How many bytes the store has become larger by.
    added_bytes: u64,
}

#[derive(Serialize)]
struct NameReport {
    name: String,
    image: String,
    /// Whether the image got the name; otherwise it belongs to another program here.
    given: bool,
}

impl Import {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        if let Some(tag) = &self.tag {
            check_name(tag)?;
        }
        let input = self.open()?;
        let store = places.create_store()?;
        places::check_writable(&store)?;
        let imported = input.read_into(&store)?;
        let names = give_names(&store, &imported)?;
        // What has been stored is told first: a tag that cannot be given doesn't take it back.
        self.report(&imported, names)?;
        if let Some(tag) = &self.tag {
            store.set_tag(tag, the_only_one(&imported, tag)?)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn open(&self) -> Result<Input, Failure> {
        if self.file.as_os_str() == STANDARD_INPUT {
            if io::stdin().is_terminal() {
                return Err(
                    Failure::new("an export is not text: nobody types it on a terminal")
                        .hint("name a file, or pipe it: `wsnap import - < FILE`"),
                );
            }
            return Ok(Input {
                reader: Box::new(io::stdin()),
                byte_len: None,
                name: "standard input".to_owned(),
            });
        }
        let failed = |error: io::Error| Failure::io("open", &self.file, &error);
        let file = File::open(&self.file).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        Ok(Input {
            reader: Box::new(file),
            byte_len: metadata.is_file().then_some(metadata.len()),
            name: self.file.display().to_string(),
        })
    }

    fn report(&self, imported: &Imported, names: Vec<NameReport>) -> Result<(), Failure> {
        let texts = |ids: &[ImageId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
        let report = Report {
            images: texts(&imported.images),
            new_images: texts(&imported.new_images),
            new_records: imported.new_records,
            names,
            tag: self.tag.clone(),
            stream_bytes: imported.stream_bytes,
            added_bytes: imported.added_bytes,
        };
        if self.json {
            return output::json_result(&report);
        }
        report.images.iter().try_for_each(output::result)?;
        output::message(format_args!(
            "imported {}, of which {} new here: {}",
            output::count(report.images.len() as u64, "image", "images"),
            output::count(report.new_images.len() as u64, "is", "are"),
            output::bytes(report.added_bytes)
        ));
        for name in &report.names {
            match name.given {
                true => output::message(format_args!("resume with: wsnap resume {}", name.name)),
                false => output::message(format_args!(
                    "the name {} belongs to another program here: wsnap resume {}",
                    name.name, name.image
                )),
            }
        }
        Ok(())
    }
}

/// Where an export is read from.
struct Input {
    reader: Box<dyn Read>,
    /// Nobody knows how much comes through a pipe.
    byte_len: Option<u64>,
    name: String,
}

impl Input {
    fn read_into(self, store: &Store) -> Result<Imported, Failure> {
        let progress = BytesProgress::new("importing", self.byte_len);
        let reader = BufReader::new(self.reader);
        let result = store.import(reader, &ImportOptions::default(), |done| {
            progress.set(done.stream_bytes);
        });
        drop(progress);
        result.map_err(|error| match error {
            // Its own hint fits better than one for imports.
            ImportError::Store(error) => error.into(),
            ImportError::Damaged { .. } => Failure::from(error)
                .about(self.name)
                .hint("nothing has been imported; export it again, and copy it as it is"),
            error => Failure::from(error).about(self.name),
        })
    }
}

/// Gives images the names that came along with them, as far as nobody has these.
fn give_names(store: &Store, imported: &Imported) -> Result<Vec<NameReport>, Failure> {
    let taken = store.names()?;
    let mut names = Vec::new();
    for (name, image) in &imported.names {
        let given = taken.get(name).is_none_or(|latest| latest == image);
        if given {
            store.set_name(name, *image)?;
        }
        names.push(NameReport {
            name: name.clone(),
            image: image.to_string(),
            given,
        });
    }
    Ok(names)
}

fn the_only_one(imported: &Imported, tag: &str) -> Result<ImageId, Failure> {
    match imported.images[..] {
        [id] => Ok(id),
        _ => Err(Failure::new(format!(
            "nothing got the tag {tag}: the export holds {}",
            output::count(imported.images.len() as u64, "image", "images")
        ))
        .hint("`wsnap tag REF TAG` tags one of them")),
    }
}
