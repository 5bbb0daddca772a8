//! `wsnap ls`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use wsnap::snapshots::{ImageEntry, ImageId, Store};

use crate::failure::Failure;
use crate::output;
use crate::places::Places;

/// List the stored images, newest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wsnap ls\n  wsnap ls --json")]
pub(crate) struct Ls {
    /// Print the list as JSON, with full ids
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    id: String,
    #[serde(skip)]
    entry: ImageEntry,
    /// Milliseconds since 1970.
    stored_ms: u64,
    /// None when the image is damaged.
    module: Option<String>,
    /// The size of all memories, whether their pages are zero or not; none when the image is damaged.
    memory_bytes: Option<u64>,
    names: Vec<String>,
    tags: Vec<String>,
}

impl Ls {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        let rows = match places.find_store()? {
            Some(store) => rows(&store)?,
            None => Vec::new(),
        };
        if self.json {
            output::json_result(&rows)?;
        } else {
            print(&rows)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn rows(store: &Store) -> Result<Vec<Row>, Failure> {
    let (names, tags) = (store.names()?, store.tags()?);
    let mut entries = store.images()?;
    entries.sort_by_key(|entry| Reverse(entry.stored_at));
    Ok(entries
        .into_iter()
        .map(|entry| {
            // A list shows what there is; `verify` says what is wrong with it.
            let manifest = store.manifest(entry.id).ok();
            let memories = manifest.as_ref().map(|manifest| manifest.memories.iter());
            Row {
                id: entry.id.to_string(),
                entry,
                stored_ms: output::unix_ms(entry.stored_at),
                memory_bytes: memories
                    .map(|memories| memories.filter_map(|memory| memory.byte_len()).sum()),
                module: manifest.map(|manifest| manifest.module.to_string()),
                names: pointing_at(&names, entry.id),
                tags: pointing_at(&tags, entry.id),
            }
        })
        .collect())
}

fn pointing_at(references: &BTreeMap<String, ImageId>, id: ImageId) -> Vec<String> {
    let pointing = references.iter().filter(|(_, target)| **target == id);
    pointing.map(|(name, _)| name.clone()).collect()
}

fn print(rows: &[Row]) -> Result<(), Failure> {
    let mut table = output::table(&["IMAGE", "STORED", "MEMORY", "NAMES", "TAGS"]);
    for row in rows {
        table.add_row([
            output::short_id(row.entry.id),
            output::time(row.entry.stored_at),
            row.memory_bytes
                .map_or_else(|| "damaged".to_owned(), output::bytes),
            list(&row.names),
            list(&row.tags),
        ]);
    }
    output::result(table.trim_fmt())
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "-".to_owned()
    } else {
        names.join(", ")
    }
}
