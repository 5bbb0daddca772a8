//! The entries of a directory in a volume, in the order in which they are listed.
//!
//! That is the order of the hashes of their names, which are the cookies of `fd_readdir` (see [`crate::directories`]). Kept
//! so, a listing goes on from any cookie without a look at what came before it.

use super::tree::Inode;
use crate::stat::hash64;
use std::collections::BTreeMap;

/// The first cookie that a name can have: those below stand for `.`, `..` and the beginning.
const COOKIE_FIRST: u64 = 3;

/// The cookie of an entry of this name, in a volume as well as in a directory of the host.
pub(crate) fn cookie(name: &str) -> u64 {
    hash64(name.as_bytes()).max(COOKIE_FIRST)
}

/// Entries are ordered by this: by cookie, and by name if several have one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    cookie: u64,
    name: String,
}

impl Key {
    pub(crate) fn new(name: String) -> Key {
        let cookie = cookie(&name);
        Key { cookie, name }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries(BTreeMap<Key, Inode>);

impl Entries {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, name: &str) -> Option<Inode> {
        self.0.get(&Key::new(name.to_owned())).copied()
    }

    pub(crate) fn insert(&mut self, name: String, inode: Inode) {
        self.0.insert(Key::new(name), inode);
    }

    /// Adds an entry that comes behind all others; returns false, and does nothing, if it does not.
    pub(crate) fn push(&mut self, name: String, inode: Inode) -> bool {
        let key = Key::new(name);
        let is_last = self.0.last_key_value().is_none_or(|(last, _)| *last < key);
        if is_last {
            self.0.insert(key, inode);
        }
        is_last
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<Inode> {
        self.0.remove(&Key::new(name.to_owned()))
    }

    /// All entries, in their order.
    pub(crate) fn keyed(&self) -> &BTreeMap<Key, Inode> {
        &self.0
    }

    /// All names and what they lead to.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Inode)> {
        self.0.iter().map(|(key, inode)| (key.name(), *inode))
    }

    /// The entries whose cookies are above `after`: cookie, name and what it leads to.
    pub(crate) fn after(&self, after: u64) -> impl Iterator<Item = (u64, &str, Inode)> {
        let next = after.checked_add(1).map(|cookie| Key {
            cookie,
            name: String::new(),
        });
        let rest = next.map(|next| self.0.range(next..)).into_iter().flatten();
        rest.map(|(key, inode)| (key.cookie, key.name(), *inode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_goes_on_behind_any_cookie() {
        let mut entries = Entries::default();
        for number in 0..100 {
            entries.insert(format!("file {number}"), number);
        }
        let all: Vec<_> = entries.after(0).collect();
        assert_eq!(all.len(), 100);
        for (index, (cookie, ..)) in all.iter().enumerate() {
            let rest: Vec<_> = entries.after(*cookie).collect();
            assert_eq!(rest, all[index + 1..]);
        }
        assert_eq!(entries.after(u64::MAX).count(), 0);
    }

    #[test]
    fn an_entry_is_pushed_behind_all_others_only() {
        let names = ["a", "b", "c", "d", "e"].map(str::to_owned);
        let mut ordered = names.to_vec();
        ordered.sort_by_key(|name| cookie(name));
        let mut entries = Entries::default();
        for name in &ordered {
            assert!(entries.push(name.clone(), 1), "{name}");
        }
        for name in ordered {
            assert!(!entries.push(name, 2));
        }
        assert!(entries.iter().all(|(_, inode)| inode == 1));
    }
}
