//! A service that starts slowly, takes a snapshot of itself when it is ready, and then answers: each resumed run answers at
//! once, and with random numbers of its own although the generator's state is part of the image.

use std::process::ExitCode;
use wsnap_guest::{Snapshot, generation, resume_count, snapshot};

/// Counted while starting: what takes long and is the same each time.
const LIMIT: usize = 2_000_000;

/// A generator of random numbers (SplitMix64). Its state is in memory, so it is in the image, too.
struct Generator(u64);

impl Generator {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// Makes the numbers from here on this run's own.
    fn mix_in(&mut self, generation: u128) {
        self.0 ^= generation as u64 ^ (generation >> 64) as u64;
    }
}

/// The prime numbers below the limit.
fn primes() -> Vec<u32> {
    let mut composite = vec![false; LIMIT];
    let mut primes = Vec::new();
    for number in 2..LIMIT {
        if !composite[number] {
            primes.push(number as u32);
            for multiple in (2 * number..LIMIT).step_by(number) {
                composite[multiple] = true;
            }
        }
    }
    primes
}

fn main() -> ExitCode {
    let primes = primes();
    let mut generator = Generator(1);
    println!("ready: {} primes", primes.len());
    match snapshot() {
        Ok(Snapshot::Taken) => println!("snapshot taken"),
        Ok(Snapshot::Resumed) => println!("resumed {} times", resume_count()),
        Err(error) => println!("{error}"),
    }
    match generation() {
        Ok(generation) => generator.mix_in(generation),
        Err(error) => {
            eprintln!("warm: {error}");
            return ExitCode::FAILURE;
        }
    }
    for _ in 0..3 {
        let index = generator.next() as usize % primes.len();
        println!("a random prime: {}", primes[index]);
    }
    ExitCode::SUCCESS
}
