//! What an export holds, in which order.

use std::collections::{HashMap, HashSet};

use crate::history::History;
use crate::id::{ImageId, ModuleHash, RecordId};
use crate::record::Record;
use crate::store::StoredImage;

pub(super) struct Plan<'a> {
    pub images: Vec<PlannedImage>,
    /// Parents before their children.
    pub records: Vec<&'a Record>,
}

/// An image to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlannedImage {
    pub id: ImageId,
    pub requested: bool,
    /// An image before it that it is probably much like.
    pub like: Option<ImageId>,
}

/// The images in their order, each like the one before it of the same program.
pub(super) fn without_ancestors(requested: &[StoredImage]) -> Plan<'static> {
    let mut last_of_module: HashMap<ModuleHash, ImageId> = HashMap::new();
    let images = requested.iter().map(|image| PlannedImage {
        id: image.id(),
        requested: true,
        like: last_of_module.insert(image.manifest().module, image.id()),
    });
    Plan {
        images: images.collect(),
        records: Vec::new(),
    }
}

/// All records of the images and the ancestors of these, with the images of all of them, each behind its parent. The
/// order depends on these records alone, whatever else the store has.
pub(super) fn with_ancestors<'a>(requested: &[StoredImage], records: &'a [Record]) -> Plan<'a> {
    let history = History::new(records);
    let wanted: HashSet<ImageId> = requested.iter().map(StoredImage::id).collect();
    let included = lineages(&history, &wanted);
    let mut plan = Plan {
        images: Vec::new(),
        records: Vec::new(),
    };
    let mut planned = HashSet::new();
    for (_, record) in history.walk() {
        if !included.contains(&record.id) {
            continue;
        }
        if planned.insert(record.image) {
            plan.images.push(PlannedImage {
                id: record.image,
                requested: wanted.contains(&record.image),
                // It has been planned: the walk comes to parents first.
                like: history.parent(record.id).map(|parent| parent.image),
            });
        }
        plan.records.push(record);
    }
    // Images without any record come last, so that what they are like comes before them in any case.
    let rest = without_ancestors(requested).images;
    plan.images
        .extend(rest.into_iter().filter(|image| planned.insert(image.id)));
    plan
}

fn lineages(history: &History<'_>, images: &HashSet<ImageId>) -> HashSet<RecordId> {
    let mut included = HashSet::new();
    for record in history.records() {
        if images.contains(&record.image) {
            for ancestor in history.lineage(Some(record.id)) {
                if !included.insert(ancestor.id) {
                    break;
                }
            }
        }
    }
    included
}
