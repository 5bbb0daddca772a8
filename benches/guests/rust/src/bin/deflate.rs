//! Text through deflate (miniz_oxide) and back.

use bench_guests::{checksum, size_argument, text};
use flate2::Compression;
use flate2::read::{DeflateDecoder, DeflateEncoder};
use std::io::Read;

fn main() {
    let text = text(size_argument(), 1);
    for level in [1, 6] {
        let mut compressed = Vec::new();
        let mut encoder = DeflateEncoder::new(text.as_bytes(), Compression::new(level));
        encoder.read_to_end(&mut compressed).expect("memory does not fail");
        let mut back = String::new();
        let mut decoder = DeflateDecoder::new(&compressed[..]);
        decoder.read_to_string(&mut back).expect("what was compressed is text");
        assert_eq!(back, text);
        println!("{level}: {} {:016x}", compressed.len(), checksum(&compressed));
    }
}
