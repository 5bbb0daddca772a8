//! Text through LZ4 and back, again and again.

use bench_guests::{checksum, size_argument, text};
use lz4_flex::{compress_prepend_size, decompress_size_prepended};

fn main() {
    for seed in 0..size_argument() as u64 {
        let text = text(50_000, 1 + seed % 4);
        let mut sizes = 0;
        for _ in 0..8 {
            let compressed = compress_prepend_size(text.as_bytes());
            let back = decompress_size_prepended(&compressed).expect("what was compressed");
            assert_eq!(back, text.as_bytes());
            sizes = compressed.len();
        }
        println!("{sizes} {:016x}", checksum(text.as_bytes()));
    }
}
