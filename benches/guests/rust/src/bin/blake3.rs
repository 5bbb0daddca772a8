//! BLAKE3 of so many mebibytes.

use bench_guests::{Random, size_argument};

fn main() {
    let mut random = Random::new(1);
    let block: Vec<u8> = (0..1 << 20).map(|_| random.number() as u8).collect();
    let mut hasher = blake3::Hasher::new();
    for _ in 0..size_argument() {
        hasher.update(&block);
    }
    println!("{}", hasher.finalize());
}
