//! Regular expressions over text: literals, classes, alternations, captures, words that may stand anywhere.

use bench_guests::{checksum, size_argument, text};
use regex::Regex;

const PATTERNS: [&str; 6] = [
    r"shakato",
    r"\b[kt]\w+[ao]\b",
    r"(?i)(mi|lo|vi)ren|est(un|del)",
    r"(\w+) (\w+)\. (\w+)",
    r"[^aeiou\s]{2}[aeiou]{2,}",
    r"(?m)^\w+ .* (ka|to)\w*\.$",
];

fn main() {
    let text = text(size_argument(), 1);
    for pattern in PATTERNS {
        let regex = Regex::new(pattern).expect("the patterns are well formed");
        let count = regex.find_iter(&text).count();
        let last = regex.captures_iter(&text).last();
        let last = last.and_then(|captures| Some(captures.iter().last()??.start()));
        println!("{pattern}: {count} {last:?}");
    }
    let replaced = Regex::new(r"(\w+)(ka|to)\b")
        .expect("the pattern is well formed")
        .replace_all(&text, "$2-$1");
    println!("{:016x}", checksum(replaced.as_bytes()));
}
