//! Sets and maps of numbers and strings: hashbrown with its own hash function, and the standard library's.

use bench_guests::{Random, size_argument, text};
use std::collections::HashMap;

fn main() {
    let size = size_argument();
    let mut random = Random::new(1);
    let mut set = hashbrown::HashSet::new();
    let mut present = 0u64;
    for _ in 0..size {
        let number = random.number() % size as u64;
        if !set.insert(number) {
            present += 1;
        }
        if set.remove(&(number / 2)) {
            present += 2;
        }
    }
    let other: hashbrown::HashSet<u64> = (0..size).map(|_| random.number() % size as u64).collect();
    let common = set.intersection(&other).fold(0, |sum, number| sum ^ number);

    let text = text(size, 2);
    let mut counts: HashMap<&str, u32> = HashMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_unstable_by(|(a, many), (b, more)| more.cmp(many).then(a.cmp(b)));
    println!("{present} {} {common:x} {:?}", set.len(), &counts[..4]);
}
