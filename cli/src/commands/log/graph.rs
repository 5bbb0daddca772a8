//! Which lines a history is drawn in, and how far each is indented.
//!
//! ```text
//! ○
//! ○          resumed twice:
//! ├─○          the side branch comes first, one step further to the right
//! │ ○
//! ○          and the main branch goes on below
//! ```
//!
//! Of several branches the main one is that with the snapshot asked for, else the one with the most snapshots. So each
//! step to the right at least halves what is left (but for one step away from the snapshot asked for), and a history of
//! thousands is some steps wide whatever its shape.

use std::collections::{HashMap, HashSet};

use wsnap::snapshots::{History, Record, RecordId};

/// A history that is about to be drawn.
pub(super) struct Graph<'a> {
    history: &'a History<'a>,
    ancestry: &'a HashSet<RecordId>,
    /// How many records there are in the tree below each, itself included.
    weights: HashMap<RecordId, usize>,
}

/// A record in a drawing.
pub(super) struct Line<'a> {
    /// What is drawn to the left of its marker.
    pub branches: String,
    pub record: &'a Record,
}

/// A record that is still to be drawn.
struct Pending<'a> {
    record: &'a Record,
    /// What is drawn to the left of it and of those on its branch.
    indent: String,
    /// Whether a side branch starts here.
    starts_branch: bool,
}

impl<'a> Graph<'a> {
    /// Prepares a drawing; `ancestry` are the snapshot asked for and those that it came from.
    pub fn new(history: &'a History<'a>, ancestry: &'a HashSet<RecordId>) -> Self {
        let mut weights = HashMap::new();
        let order: Vec<_> = history.walk().map(|(_, record)| record).collect();
        // Children come behind their parents.
        for record in order.into_iter().rev() {
            let below: usize = history
                .children(record.id)
                .map(|child| weights[&child.id])
                .sum();
            weights.insert(record.id, below + 1);
        }
        Self {
            history,
            ancestry,
            weights,
        }
    }

    /// The lines from top to bottom: each record below the one that it came from.
    pub fn lines(&self) -> impl Iterator<Item = Line<'a>> + '_ {
        let mut roots: Vec<_> = self.history.roots().collect();
        roots.reverse();
        // A stack of its own: histories are deeper than the thread's stack is long.
        let mut next: Vec<_> = roots
            .into_iter()
            .map(|record| Pending {
                record,
                indent: String::new(),
                starts_branch: false,
            })
            .collect();
        std::iter::from_fn(move || {
            let pending = next.pop()?;
            let branches = match (pending.starts_branch, pending.indent.strip_suffix("│ ")) {
                (true, Some(left)) => format!("{left}├─"),
                _ => pending.indent.clone(),
            };
            self.push_children(&pending, &mut next);
            Some(Line {
                branches,
                record: pending.record,
            })
        })
    }

    /// Puts the children of a record on the stack, the main branch at the bottom.
    fn push_children(&self, parent: &Pending<'a>, next: &mut Vec<Pending<'a>>) {
        let children: Vec<_> = self.history.children(parent.record.id).collect();
        let main = children
            .iter()
            .enumerate()
            .max_by_key(|(age, child)| {
                let is_ancestry = self.ancestry.contains(&child.id);
                (is_ancestry, self.weights[&child.id], *age)
            })
            .map(|(index, _)| index);
        let Some(main) = main else { return };
        next.push(Pending {
            record: children[main],
            indent: parent.indent.clone(),
            starts_branch: false,
        });
        for (index, child) in children.iter().enumerate().rev() {
            if index != main {
                next.push(Pending {
                    record: child,
                    indent: format!("{}│ ", parent.indent),
                    starts_branch: true,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use wsnap::snapshots::ImageId;

    use super::*;

    fn record(number: u32, parent: Option<u32>) -> Record {
        let id = |number: u32| {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&number.to_le_bytes());
            RecordId(id)
        };
        Record {
            id: id(number),
            image: ImageId([0; 32]),
            parent: parent.map(id),
            taken_at_ms: number.into(),
            trigger: "snap".to_owned(),
            name: None,
            labels: BTreeMap::new(),
            added_bytes: 0,
            ran_ms: 0,
            output_bytes: None,
            rejected: None,
        }
    }

    fn drawing(records: &[Record], ancestry: &[u32]) -> Vec<String> {
        let history = History::new(records);
        let ancestry = ancestry
            .iter()
            .map(|number| record(*number, None).id)
            .collect();
        Graph::new(&history, &ancestry)
            .lines()
            .map(|line| format!("{}{}", line.branches, line.record.taken_at_ms))
            .collect()
    }

    #[test]
    fn a_chain_is_a_straight_line_however_long_it_is() {
        let records: Vec<_> = (0..5000)
            .map(|number: u32| record(number, number.checked_sub(1)))
            .collect();
        let expected: Vec<_> = (0..5000).map(|number| number.to_string()).collect();
        assert_eq!(drawing(&records, &[]), expected);
    }

    #[test]
    fn side_branches_are_drawn_beside_the_longest_one_and_inside_each_other() {
        let records = [
            record(1, None),
            record(2, Some(1)),
            record(3, Some(1)),
            record(4, Some(3)),
            record(5, Some(3)),
            record(6, Some(2)),
            record(7, Some(6)),
            record(8, Some(7)),
            record(9, None),
        ];
        assert_eq!(
            drawing(&records, &[]),
            ["1", "├─3", "│ ├─4", "│ 5", "2", "6", "7", "8", "9"]
        );
    }

    #[test]
    fn the_branch_of_the_snapshot_asked_for_is_the_straight_one() {
        let records = [
            record(1, None),
            record(2, Some(1)),
            record(3, Some(2)),
            record(4, Some(1)),
        ];
        assert_eq!(drawing(&records, &[]), ["1", "├─4", "2", "3"]);
        assert_eq!(drawing(&records, &[1, 4]), ["1", "├─2", "│ 3", "4"]);
    }

    #[test]
    fn a_history_that_branches_at_every_step_stays_narrow() {
        // Each record of the first half has a child that nothing came from, and it is the newer one.
        let mut records: Vec<_> = (0..1000)
            .map(|number: u32| record(number, number.checked_sub(1)))
            .collect();
        records.extend((0..1000).map(|number| record(2000 - number, Some(number))));
        let lines = drawing(&records, &[]);
        assert_eq!(lines.len(), 2000);
        let widest = lines.iter().map(|line| line.chars().count()).max();
        assert_eq!(widest, Some("├─2000".chars().count()));
    }
}
