//! The tree that records form by their parents.
//!
//! Records come from files that other programs may have written or damaged. Whatever they say of their parents, what
//! is seen here is a forest: a record whose parent is missing is a root, and a circle of records is opened at its
//! oldest one.

use std::collections::HashMap;

use crate::id::{ImageId, RecordId};
use crate::record::Record;

/// The tree, or trees, of a list of records.
///
/// ```
/// use std::collections::BTreeMap;
/// use wsnap_snapshots::{History, ImageId, Record, RecordId};
///
/// let record = |number: u8, parent: Option<u8>| Record {
///     id: RecordId([number; 16]),
///     image: ImageId([number; 32]),
///     parent: parent.map(|number| RecordId([number; 16])),
///     taken_at_ms: number.into(),
///     trigger: "snap".to_owned(),
///     name: None,
///     labels: BTreeMap::new(),
///     added_bytes: 0,
///     ran_ms: 0,
///     output_bytes: None,
///     rejected: None,
/// };
/// let records = [record(1, None), record(2, Some(1)), record(3, Some(1)), record(4, Some(2))];
/// let history = History::new(&records);
/// let lines: Vec<_> = history.walk().map(|(depth, record)| (depth, record.taken_at_ms)).collect();
/// assert_eq!(lines, [(0, 1), (1, 2), (2, 4), (1, 3)]);
/// let ancestry: Vec<_> = history.ancestry(ImageId([4; 32])).map(|record| record.taken_at_ms).collect();
/// assert_eq!(ancestry, [4, 2, 1]);
/// ```
#[derive(Clone, Debug)]
pub struct History<'a> {
    /// By time; each id once.
    records: Vec<&'a Record>,
    indices: HashMap<RecordId, usize>,
    /// Invariant: following the parents from any record ends.
    parents: Vec<Option<usize>>,
    /// By time, as the records are.
    children: Vec<Vec<usize>>,
    roots: Vec<usize>,
}

impl<'a> History<'a> {
    /// Connects records, which can be in any order. Of records with the same id the first counts. The time taken is
    /// that of sorting them.
    pub fn new(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut sorted: Vec<&Record> = records.into_iter().collect();
        sorted.sort_by_key(|record| record.id);
        sorted.dedup_by_key(|record| record.id);
        sorted.sort_unstable_by_key(|record| record.order());
        let indices: HashMap<RecordId, usize> = sorted
            .iter()
            .enumerate()
            .map(|(index, record)| (record.id, index))
            .collect();
        let stated: Vec<Option<usize>> = sorted
            .iter()
            .map(|record| indices.get(&record.parent?).copied())
            .collect();
        let parents = without_circles(stated);
        let mut children = vec![Vec::new(); sorted.len()];
        let mut roots = Vec::new();
        for (index, parent) in parents.iter().enumerate() {
            match parent {
                Some(parent) => children[*parent].push(index),
                None => roots.push(index),
            }
        }
        Self {
            records: sorted,
            indices,
            parents,
            children,
            roots,
        }
    }

    /// All records, oldest first.
    pub fn records(&self) -> &[&'a Record] {
        &self.records
    }

    /// The record that has this id.
    pub fn get(&self, id: RecordId) -> Option<&'a Record> {
        self.indices.get(&id).map(|index| self.records[*index])
    }

    /// The records that have no parent here, oldest first.
    pub fn roots(&self) -> impl Iterator<Item = &'a Record> + '_ {
        self.roots.iter().map(|index| self.records[*index])
    }

    /// The parent of a record.
    pub fn parent(&self, id: RecordId) -> Option<&'a Record> {
        let parent = self.parents[*self.indices.get(&id)?]?;
        Some(self.records[parent])
    }

    /// The records whose parent is `id`, oldest first.
    pub fn children(&self, id: RecordId) -> impl Iterator<Item = &'a Record> + '_ {
        let children = self
            .indices
            .get(&id)
            .map_or(&[][..], |index| &self.children[*index]);
        children.iter().map(|index| self.records[*index])
    }

    /// All records, each one behind its parent and before its parent's next child, with the number of their ancestors.
    pub fn walk(&self) -> impl Iterator<Item = (usize, &'a Record)> + '_ {
        // A stack of its own: histories are deeper than the thread's stack is long.
        let mut next: Vec<(usize, usize)> =
            self.roots.iter().rev().map(|index| (0, *index)).collect();
        std::iter::from_fn(move || {
            let (depth, index) = next.pop()?;
            let children = self.children[index].iter().rev();
            next.extend(children.map(|child| (depth + 1, *child)));
            Some((depth, self.records[index]))
        })
    }

    /// The newest record of an image.
    pub fn record_of(&self, image: ImageId) -> Option<&'a Record> {
        self.newest(|record| record.image == image)
    }

    /// The newest record of the program `name`.
    pub fn latest_of(&self, name: &str) -> Option<&'a Record> {
        self.newest(|record| record.name.as_deref() == Some(name))
    }

    /// How an image came about: its newest record, the parent of that, and so on to a root. Nothing if the image has no
    /// record.
    pub fn ancestry(&self, image: ImageId) -> impl Iterator<Item = &'a Record> + '_ {
        self.lineage(self.record_of(image).map(|record| record.id))
    }

    /// The record `id`, its parent, and so on to a root.
    pub fn lineage(&self, id: Option<RecordId>) -> impl Iterator<Item = &'a Record> + '_ {
        let first = id.and_then(|id| self.indices.get(&id).copied());
        std::iter::successors(first, |index| self.parents[*index]).map(|index| self.records[index])
    }

    fn newest(&self, fits: impl Fn(&Record) -> bool) -> Option<&'a Record> {
        self.records
            .iter()
            .rev()
            .copied()
            .find(|record| fits(record))
    }
}

/// Takes the parent from the first member of each circle.
fn without_circles(mut parents: Vec<Option<usize>>) -> Vec<Option<usize>> {
    const UNSEEN: usize = usize::MAX;
    // From which start each record was first reached. Meeting a record of the same start again closes a circle.
    let mut reached_from = vec![UNSEEN; parents.len()];
    for start in 0..parents.len() {
        let mut at = start;
        reached_from[at] = start;
        while let Some(parent) = parents[at] {
            if reached_from[parent] == start {
                open_circle(&mut parents, parent);
                break;
            }
            if reached_from[parent] != UNSEEN {
                break;
            }
            reached_from[parent] = start;
            at = parent;
        }
    }
    parents
}

fn open_circle(parents: &mut [Option<usize>], member: usize) {
    let rest = std::iter::successors(parents[member], |at| parents[*at].filter(|_| *at != member));
    let first = rest.min().unwrap_or(member);
    parents[first] = None;
}
