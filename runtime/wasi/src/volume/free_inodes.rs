//! Numbers of inodes that can be given out again.

use super::tree::Inode;
use std::collections::BTreeMap;

/// Free numbers, as runs: how many there are is up to whoever made the volume, who needs no file for each of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FreeInodes {
    /// How many free numbers follow each other, by the first one. Invariant: runs are neither empty nor neighbours.
    runs: BTreeMap<Inode, u32>,
}

impl FreeInodes {
    /// The numbers below the last of those `taken`, which ascend, that are none of them.
    pub fn between(taken: impl Iterator<Item = Inode>) -> Self {
        let mut runs = BTreeMap::new();
        let mut next = 0;
        for inode in taken {
            if next < inode {
                runs.insert(next, inode - next);
            }
            next = inode.saturating_add(1);
        }
        Self { runs }
    }

    /// Takes the lowest one.
    pub fn take_lowest(&mut self) -> Option<Inode> {
        let (first, count) = self.runs.pop_first()?;
        if count > 1 {
            self.runs.insert(first + 1, count - 1);
        }
        Some(first)
    }

    /// Makes one free again, which must not be free.
    pub fn give_back(&mut self, inode: Inode) {
        let (mut first, mut count) = (inode, 1);
        if let Some((&before, &length)) = self.runs.range(..inode).next_back()
            && before + length == inode
        {
            (first, count) = (before, length + 1);
        }
        if let Some(length) = inode
            .checked_add(1)
            .and_then(|next| self.runs.remove(&next))
        {
            count += length;
        }
        self.runs.insert(first, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_lowest_free_number_is_taken_as_from_a_set() {
        let mut random = blake3::Hasher::new().finalize_xof();
        let mut byte = || {
            let mut byte = [0];
            random.fill(&mut byte);
            Inode::from(byte[0])
        };
        let mut taken: BTreeSet<Inode> = (0..50).map(|_| byte()).collect();
        let last = taken.last().copied().unwrap_or_default();
        let mut expected: BTreeSet<Inode> = (0..last).filter(|n| !taken.contains(n)).collect();
        let mut free = FreeInodes::between(taken.iter().copied());
        for _ in 0..10_000 {
            let number = byte();
            if taken.remove(&number) {
                expected.insert(number);
                free.give_back(number);
            }
            for _ in 0..byte() % 3 {
                let lowest = free.take_lowest();
                assert_eq!(lowest, expected.pop_first());
                taken.extend(lowest);
            }
            let runs = free
                .runs
                .iter()
                .flat_map(|(first, count)| *first..first + count);
            assert!(runs.eq(expected.iter().copied()));
        }
    }

    #[test]
    fn any_number_of_free_ones_is_one_run() {
        let free = FreeInodes::between([0, u32::MAX].into_iter());
        assert_eq!(free.runs, BTreeMap::from([(1, u32::MAX - 1)]));
    }
}
