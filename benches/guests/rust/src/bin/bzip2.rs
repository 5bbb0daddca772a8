//! Text through bzip2 and back.

use bench_guests::{checksum, size_argument, text};
use bzip2::Compression;
use bzip2::read::{BzDecoder, BzEncoder};
use std::io::Read;

fn main() {
    let text = text(size_argument(), 1);
    let mut compressed = Vec::new();
    let mut encoder = BzEncoder::new(text.as_bytes(), Compression::best());
    encoder.read_to_end(&mut compressed).expect("memory does not fail");
    let mut back = String::new();
    let mut decoder = BzDecoder::new(&compressed[..]);
    decoder.read_to_string(&mut back).expect("what was compressed is text");
    assert_eq!(back, text);
    println!("{} {:016x}", compressed.len(), checksum(&compressed));
}
