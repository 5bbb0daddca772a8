//! What the programs here share: how large, random numbers that are the same everywhere, text, and a checksum.

use std::env;
use std::process::exit;

/// The program's only argument says how much there is to do, so that no compiler can know.
pub fn size_argument() -> usize {
    let size = env::args().nth(1).and_then(|size| size.parse().ok());
    size.unwrap_or_else(|| {
        eprintln!("usage: PROGRAM SIZE");
        exit(2)
    })
}

/// xorshift64*
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Less than `end`, the small ones far more often, as words of a language are.
    pub fn rank(&mut self, end: usize) -> usize {
        let part = (self.number() >> 32) as f64 / 4_294_967_296.0;
        ((part * part * part) * end as f64) as usize
    }
}

/// So many words of a language that nobody speaks, in sentences and paragraphs.
pub fn text(words: usize, seed: u64) -> String {
    const SYLLABLES: [&str; 16] = [
        "ka", "to", "mi", "ren", "sha", "lo", "vi", "ar", "est", "un", "del", "pro", "qui", "ba", "ni", "or",
    ];
    let mut random = Random::new(seed);
    let word = |random: &mut Random| {
        let length = 1 + random.rank(5);
        (0..length).map(|_| SYLLABLES[random.rank(16)]).collect::<String>()
    };
    let dictionary: Vec<String> = (0..2000).map(|_| word(&mut random)).collect();
    let mut text = String::new();
    let mut sentence = 0;
    for _ in 0..words {
        text.push_str(&dictionary[random.rank(dictionary.len())]);
        sentence += 1;
        let ends = sentence > 4 && random.number() % 8 == 0;
        text.push_str(match (ends, random.number() % 6) {
            (false, _) => " ",
            (true, 0) => ".\n\n",
            (true, _) => ". ",
        });
        if ends {
            sentence = 0;
        }
    }
    text
}

/// FNV-1a.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}
