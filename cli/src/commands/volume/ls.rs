//! `wsnap volume ls`.

use clap::Args;
use serde::Serialize;
use wsnap::wasi::{Volume, VolumeEntry};

use super::{find, open};
use crate::arguments::VolumePath;
use crate::failure::Failure;
use crate::output;
use crate::places::Places;

/// List an image's volumes, or the files in a directory of one
#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
    /// The image: an id, the first digits of one, a tag, or a program's name (its latest image)
    #[arg(value_name = "REF")]
    reference: String,
    /// The directory: a volume's name, or a path in one; without it, the volumes are listed
    #[arg(value_name = "VOLUME[:PATH]")]
    place: Option<VolumePath>,
}

#[derive(Serialize)]
struct VolumeRow {
    name: String,
    guest_path: String,
    /// How much the content of its files takes, in whole pages.
    content_bytes: u64,
}

#[derive(Serialize)]
struct EntryRow {
    name: String,
    #[serde(rename = "type")]
    file_type: String,
    bytes: u64,
    /// Nanoseconds since 1970.
    modified_ns: u64,
}

impl Ls {
    pub fn execute(self, places: &Places) -> Result<(), Failure> {
        let (_, _, volumes) = open(places, &self.reference)?;
        match &self.place {
            None => self.print_volumes(volumes.all()),
            Some(place) => {
                let entries = find(&volumes, place)?.entries(&place.path)?;
                self.print_entries(&entries)
            }
        }
    }

    fn print_volumes(&self, volumes: &[Volume]) -> Result<(), Failure> {
        let rows = volumes.iter().map(|volume| VolumeRow {
            name: volume.name().to_owned(),
            guest_path: volume.guest_path().to_owned(),
            content_bytes: volume.content_bytes(),
        });
        let rows: Vec<_> = rows.collect();
        if self.json {
            return output::json_result(&rows);
        }
        let mut table = output::table(&["VOLUME", "GUEST PATH", "CONTENT"]);
        for row in &rows {
            table.add_row([
                output::cell(&row.name),
                output::cell(&row.guest_path),
                output::bytes(row.content_bytes),
            ]);
        }
        output::result(table.trim_fmt())
    }

    fn print_entries(&self, entries: &[VolumeEntry]) -> Result<(), Failure> {
        let rows = entries.iter().map(|entry| EntryRow {
            name: entry.name.clone(),
            file_type: entry.file_type.to_string(),
            bytes: entry.size_bytes,
            modified_ns: entry.modified_ns,
        });
        let rows: Vec<_> = rows.collect();
        if self.json {
            return output::json_result(&rows);
        }
        let mut table = output::table(&["NAME", "TYPE", "BYTES", "MODIFIED"]);
        for row in &rows {
            let modified = output::from_unix_ms(row.modified_ns / 1_000_000);
            table.add_row([
                output::cell(&row.name),
                output::cell(&row.file_type),
                row.bytes.to_string(),
                output::time(modified),
            ]);
        }
        output::result(table.trim_fmt())
    }
}
