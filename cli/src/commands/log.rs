//! `wsnap log`.

mod graph;

use std::collections::{BTreeMap, HashSet};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use wsnap::snapshots::{History, ImageId, Record, RecordId, Rejection, Store};

use crate::failure::Failure;
use crate::output;
use crate::places::Places;
use graph::Graph;

/// Show which snapshots were taken, when, why, and from which one each came
///
/// A line stands for a snapshot, below the one that its program came from. A program that was resumed several times
/// from one snapshot branches there. `@` is the snapshot asked for, `●` are those that it came from, `○` are others, and `×`
/// those that are rejected, since their program died again and again after them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wsnap log sim\n  wsnap log\n  wsnap log --json sim | jq '.[] | select(.ancestry) | .image'"
)]
pub(crate) struct Log {
    /// Print a list as JSON, oldest first, with the record of each snapshot and its parent's
    #[arg(long)]
    json: bool,
    /// The image whose tree is shown: an id, the first digits of one, a tag, or a program's name [default: all trees]
    #[arg(value_name = "REF")]
    reference: Option<String>,
}

#[derive(Serialize)]
struct Entry<'a> {
    record: String,
    image: String,
    /// The record of the snapshot that this one came from; none if it started from nothing, or that has been removed.
    parent: Option<String>,
    parent_image: Option<String>,
    /// Milliseconds since 1970.
    taken_at_ms: u64,
    added_bytes: u64,
    /// How long the program had run in all, in milliseconds, as far as that is known.
    ran_ms: u64,
    /// How many bytes its output file had, if it had one.
    output_bytes: Option<u64>,
    /// Why its program does not go on from it by itself, if so.
    rejected: Option<&'a Rejection>,
    trigger: &'a str,
    name: Option<&'a str>,
    tags: &'a [String],
    labels: &'a BTreeMap<String, String>,
    /// Whether it is the snapshot asked for, or one that this came from.
    ancestry: bool,
}

/// The snapshots to be shown.
struct Selection<'a> {
    history: &'a History<'a>,
    /// The one asked for.
    target: Option<RecordId>,
    /// That one and those that it came from.
    ancestry: HashSet<RecordId>,
    tags: BTreeMap<ImageId, Vec<String>>,
}

impl Log {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        let (store, target) = match &self.reference {
            Some(reference) => {
                let (store, id) = places.resolve(reference)?;
                (Some(store), Some(id))
            }
            None => (places.find_store()?, None),
        };
        let (records, damaged) = match &store {
            Some(store) => store.readable_records()?,
            None => Default::default(),
        };
        let tags = match &store {
            Some(store) => tags_by_image(store)?,
            None => BTreeMap::new(),
        };
        let printed = self.print(&records, target, tags);
        let is_incomplete = !damaged.is_empty();
        for error in damaged {
            Failure::from(error).print();
        }
        match printed {
            // A pager that was left early has shown what was wanted.
            Err(failure) if failure.is_silent() => Ok(ExitCode::SUCCESS),
            Err(failure) => Err(failure),
            Ok(()) if is_incomplete => Err(Failure::new("some snapshots cannot be shown")),
            Ok(()) => Ok(ExitCode::SUCCESS),
        }
    }

    fn print(
        &self,
        records: &[Record],
        target: Option<ImageId>,
        tags: BTreeMap<ImageId, Vec<String>>,
    ) -> Result<(), Failure> {
        let all = History::new(records);
        let lineage = match target {
            Some(id) => lineage(&all, id)?,
            None => Vec::new(),
        };
        let tree = lineage.last().map(|root| members(&all, root));
        let history = match tree {
            Some(tree) => &History::new(tree),
            None => &all,
        };
        let selection = Selection {
            history,
            target: lineage.first().map(|record| record.id),
            ancestry: lineage.iter().map(|record| record.id).collect(),
            tags,
        };
        if self.json {
            selection.print_json()
        } else {
            selection.print_graph()
        }
    }
}

/// The newest record of an image, and those that it came from.
fn lineage<'a>(history: &History<'a>, id: ImageId) -> Result<Vec<&'a Record>, Failure> {
    let lineage: Vec<_> = history.ancestry(id).collect();
    if lineage.is_empty() {
        return Err(Failure::new(format!(
            "nobody knows where image {id} comes from: it has no record"
        ))
        .hint(
            "`wsnap inspect` shows what it contains; `wsnap export --ancestors` passes records on",
        ));
    }
    Ok(lineage)
}

/// A record and all that came from it.
fn members<'a>(history: &History<'a>, root: &'a Record) -> Vec<&'a Record> {
    let mut members = vec![root];
    let mut next = 0;
    while let Some(record) = members.get(next) {
        members.extend(history.children(record.id));
        next += 1;
    }
    members
}

fn tags_by_image(store: &Store) -> Result<BTreeMap<ImageId, Vec<String>>, Failure> {
    let mut tags: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (tag, image) in store.tags()? {
        tags.entry(image).or_default().push(tag);
    }
    Ok(tags)
}

impl Selection<'_> {
    fn print_json(&self) -> Result<(), Failure> {
        let entries: Vec<_> = self
            .history
            .records()
            .iter()
            .map(|one| self.entry(one))
            .collect();
        output::json_result(&entries)
    }

    fn entry<'s>(&'s self, record: &'s Record) -> Entry<'s> {
        let parent = self.history.parent(record.id);
        Entry {
            record: record.id.to_string(),
            image: record.image.to_string(),
            parent: parent.map(|parent| parent.id.to_string()),
            parent_image: parent.map(|parent| parent.image.to_string()),
            taken_at_ms: record.taken_at_ms,
            added_bytes: record.added_bytes,
            ran_ms: record.ran_ms,
            output_bytes: record.output_bytes,
            rejected: record.rejected.as_ref(),
            trigger: &record.trigger,
            name: record.name.as_deref(),
            tags: self.tags_of(record),
            labels: &record.labels,
            ancestry: self.ancestry.contains(&record.id),
        }
    }

    fn tags_of(&self, record: &Record) -> &[String] {
        self.tags.get(&record.image).map_or(&[], Vec::as_slice)
    }

    fn print_graph(&self) -> Result<(), Failure> {
        let mut header = vec![
            "", "TAKEN", "IMAGE", "ADDED", "TRIGGER", "NAME", "TAGS", "LABELS",
        ];
        let mut records = self.history.records().iter();
        let shows_rejected = records.any(|record| record.rejected.is_some());
        header.extend(shows_rejected.then_some("REJECTED"));
        let mut table = output::table(&header);
        for line in Graph::new(self.history, &self.ancestry).lines() {
            let record = line.record;
            let mut row = vec![
                format!("{}{}", line.branches, self.marker(record)),
                output::time(output::from_unix_ms(record.taken_at_ms)),
                output::short_id(record.image),
                output::bytes(record.added_bytes),
                output::cell(&record.trigger),
                record.name.clone().unwrap_or_else(|| "-".to_owned()),
                output::list(self.tags_of(record)),
                labels(&record.labels),
            ];
            row.extend(shows_rejected.then(|| rejected(record)));
            table.add_row(row);
        }
        output::result(table.trim_fmt())
    }

    fn marker(&self, record: &Record) -> char {
        if record.rejected.is_some() {
            '×'
        } else if self.target == Some(record.id) {
            '@'
        } else if self.ancestry.contains(&record.id) {
            '●'
        } else {
            '○'
        }
    }
}

fn rejected(record: &Record) -> String {
    match &record.rejected {
        Some(rejection) => output::cell(&rejection.reason),
        None => "-".to_owned(),
    }
}

fn labels(labels: &BTreeMap<String, String>) -> String {
    let texts: Vec<_> = labels
        .iter()
        .map(|(key, value)| output::cell(&format!("{key}={value}")))
        .collect();
    output::list(&texts)
}
