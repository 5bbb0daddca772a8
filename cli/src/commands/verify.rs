//! `wsnap verify`.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use wsnap::snapshots::memory_tree::LEAF_SIZE;
use wsnap::snapshots::{Extent, Item, Store, StoreError, Verification};

use crate::failure::Failure;
use crate::output::{self, BytesProgress};
use crate::places::Places;

/// Check that what is stored is intact
///
/// Reads every byte of all images and of what no image uses: modules, page maps, layers, records, names and tags. What
/// images have in common is read once. Exits with 1 when something is damaged or missing, after naming all of it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wsnap verify\n  wsnap verify sim\n  wsnap verify --json | jq '.[] | select(.intact | not)'"
)]
pub(crate) struct Verify {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Check only this image and its module: an id, the first digits of one, a tag, or a program's name
    #[arg(value_name = "REF")]
    reference: Option<String>,
}

#[derive(Serialize)]
struct Checked {
    /// `image`, `page map`, `layer`, `module`, `record`, `name` or `tag`.
    kind: &'static str,
    /// Its id, hash or name.
    id: String,
    intact: bool,
    /// What is wrong.
    damage: Option<String>,
    /// The files that the damaged part of a memory is read from.
    files: Vec<String>,
}

impl Verify {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        let checked = match self.items(places)? {
            Some((store, items)) => self.check_all(&store, &items)?,
            None => Vec::new(),
        };
        if self.json {
            output::json_result(&checked)?;
        }
        conclude(&checked)
    }

    fn items(&self, places: &Places) -> Result<Option<(Store, Vec<Item>)>, Failure> {
        if let Some(reference) = &self.reference {
            let (store, id) = places.resolve(reference)?;
            return Ok(Some((store, vec![Item::Image(id)])));
        }
        let Some(store) = places.find_store()? else {
            return Ok(None);
        };
        let items = store.inventory()?;
        Ok(Some((store, items)))
    }

    fn check_all(&self, store: &Store, items: &[Item]) -> Result<Vec<Checked>, Failure> {
        let verification = store.verification();
        // Counting takes a look at every image, which is worth it only if somebody sees the result.
        let total = output::shows_progress().then(|| verification.checked_len(items));
        let progress = BytesProgress::new("verifying", total);
        let mut all = Vec::new();
        for item in items {
            let checked = Checked::new(store, &verification, item, &progress);
            if !self.json {
                checked.print(&progress)?;
            }
            all.push(checked);
        }
        Ok(all)
    }
}

impl Checked {
    fn new(
        store: &Store,
        verification: &Verification<'_>,
        item: &Item,
        progress: &BytesProgress,
    ) -> Self {
        let result = verification.verify(item, &|bytes| progress.add(bytes));
        let files = match &result {
            Err(error) => files_of(store, error),
            Ok(()) => Vec::new(),
        };
        let text = item.to_string();
        let id = text.strip_prefix(item.kind()).unwrap_or(&text).trim_start();
        Self {
            kind: item.kind(),
            id: id.to_owned(),
            intact: result.is_ok(),
            damage: result
                .err()
                .map(|error| Failure::from(error).message().to_owned()),
            files,
        }
    }

    /// Every image has its line, and so has whatever else is damaged.
    fn print(&self, progress: &BytesProgress) -> Result<(), Failure> {
        let name = match self.kind {
            "image" => self.id.clone(),
            kind => format!("{kind} {}", self.id),
        };
        match &self.damage {
            None if self.kind == "image" => progress.result(format_args!("{name} intact")),
            None => Ok(()),
            Some(damage) => {
                progress.result(format_args!("{name} damaged: {}", output::cell(damage)))?;
                let mut files = self.files.iter();
                files.try_for_each(|file| progress.result(format_args!("  read from {file}")))
            }
        }
    }
}

/// Where the bytes of a damaged part of a memory come from: one of these files is damaged, at least.
fn files_of(store: &Store, error: &StoreError) -> Vec<String> {
    let StoreError::DamagedMemory {
        image,
        memory,
        offset,
    } = error
    else {
        return Vec::new();
    };
    let Ok(image) = store.load(*image) else {
        return Vec::new();
    };
    let Some(memory) = image.memories().get(*memory) else {
        return Vec::new();
    };
    let end = offset + LEAF_SIZE as u64;
    let is_read = |extent: &&Extent| extent.memory_offset < end && extent.memory_end() > *offset;
    let mut layers: Vec<u32> = memory
        .extents()
        .iter()
        .filter(is_read)
        .map(|extent| extent.layer)
        .collect();
    layers.sort_unstable();
    layers.dedup();
    layers
        .into_iter()
        .map(|layer| memory.layers()[layer as usize].path().display().to_string())
        .collect()
}

fn conclude(checked: &[Checked]) -> Result<ExitCode, Failure> {
    let is_image = |checked: &&Checked| checked.kind == "image";
    let is_damaged = |checked: &&Checked| !checked.intact;
    let images = checked.iter().filter(is_image).count();
    let damaged = checked.iter().filter(is_damaged).count();
    let damaged_images = checked.iter().filter(is_image).filter(is_damaged).count();
    if damaged == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let other = damaged - damaged_images;
    let others = output::count(other as u64, "other thing is", "other things are");
    if damaged_images == 0 {
        return Err(
            Failure::new(format!("all images are intact, but {others} damaged"))
                .hint(
            "no program is lost: `wsnap tag --delete TAG` deletes a tag, `wsnap gc` what no image uses; the files of \
             damaged records and names can be deleted by hand",
        ),
        );
    }
    let mut message = format!("{damaged_images} of {images} images cannot be resumed");
    if other > 0 {
        message = format!("{message}, and {others} damaged");
    }
    Err(Failure::new(message).hint(
        "`wsnap rm --force REF` removes a damaged image; `wsnap import` brings it back from an export",
    ))
}
