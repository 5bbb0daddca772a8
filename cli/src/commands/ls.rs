//! `wsnap ls`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use wsnap::snapshots::{ImageEntry, ImageId, Record, Store};

use crate::failure::Failure;
use crate::output;
use crate::places::Places;

/// List the stored images, newest first
///
/// An image was taken when its program was stopped, and stored when this store received it. What it added is what its
/// snapshot needed beside all that the store had already.
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
    #[serde(flatten)]
    taken: Taken,
    /// Milliseconds since 1970.
    stored_ms: u64,
    /// None when the image is damaged.
    module: Option<String>,
    /// The size of all memories, whether their pages are zero or not; none when the image is damaged.
    memory_bytes: Option<u64>,
    names: Vec<String>,
    tags: Vec<String>,
}

/// What is known about the snapshot from its newest record, if it has one.
#[derive(Default, Serialize)]
struct Taken {
    record: Option<String>,
    /// Milliseconds since 1970.
    taken_at_ms: Option<u64>,
    trigger: Option<String>,
    added_bytes: Option<u64>,
}

impl From<Record> for Taken {
    fn from(record: Record) -> Self {
        Self {
            record: Some(record.id.to_string()),
            taken_at_ms: Some(record.taken_at_ms),
            trigger: Some(record.trigger),
            added_bytes: Some(record.added_bytes),
        }
    }
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
    // A list shows what there is; `verify` says what is wrong with it.
    let (records, _) = store.readable_records()?;
    // They come oldest first, so the newest one of each image stays.
    let mut taken: HashMap<ImageId, Taken> = records
        .into_iter()
        .map(|record| (record.image, record.into()))
        .collect();
    let mut rows: Vec<_> = store
        .images()?
        .into_iter()
        .map(|entry| {
            let manifest = store.manifest(entry.id).ok();
            let memories = manifest.as_ref().map(|manifest| manifest.memories.iter());
            Row {
                id: entry.id.to_string(),
                entry,
                taken: taken.remove(&entry.id).unwrap_or_default(),
                stored_ms: output::unix_ms(entry.stored_at),
                memory_bytes: memories
                    .map(|memories| memories.filter_map(|memory| memory.byte_len()).sum()),
                module: manifest.map(|manifest| manifest.module.to_string()),
                names: pointing_at(&names, entry.id),
                tags: pointing_at(&tags, entry.id),
            }
        })
        .collect();
    rows.sort_by_key(|row| Reverse(row.time_ms()));
    Ok(rows)
}

impl Row {
    /// When the snapshot was taken, or else when it was stored here.
    fn time_ms(&self) -> u64 {
        self.taken.taken_at_ms.unwrap_or(self.stored_ms)
    }
}

fn pointing_at(references: &BTreeMap<String, ImageId>, id: ImageId) -> Vec<String> {
    let pointing = references.iter().filter(|(_, target)| **target == id);
    pointing.map(|(name, _)| name.clone()).collect()
}

fn print(rows: &[Row]) -> Result<(), Failure> {
    let mut table = output::table(&[
        "IMAGE", "TAKEN", "TRIGGER", "MEMORY", "ADDED", "NAMES", "TAGS",
    ]);
    for row in rows {
        let known = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.add_row([
            output::short_id(row.entry.id),
            output::time(output::from_unix_ms(row.time_ms())),
            known(row.taken.trigger.as_deref().map(output::cell)),
            row.memory_bytes
                .map_or_else(|| "damaged".to_owned(), output::bytes),
            known(row.taken.added_bytes.map(output::bytes)),
            output::list(&row.names),
            output::list(&row.tags),
        ]);
    }
    output::result(table.trim_fmt())
}
