//! What tells one run of a program from all others.

use crate::random::Random;
use crate::wasi::Wasi;
use std::io;

/// Keeps what is derived from a seed here apart from the random bytes that the guest draws.
const CONTEXT: &str = "wsnap 2026 generation of a deterministic program";

impl Wasi {
    /// A value for a run of the program that begins now, by a start or a resume: fresh bytes of the host. A deterministic
    /// program has the same one in all runs, derived from its seed.
    ///
    /// # Errors
    ///
    /// When the host has no random bytes.
    pub fn generation(&self) -> io::Result<[u8; 16]> {
        let mut generation = [0; 16];
        match self.random {
            Random::Host => Random::Host.fill(&mut generation)?,
            Random::Seeded { seed, .. } => {
                let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
                hasher.update(&seed);
                hasher.finalize_xof().fill(&mut generation);
            }
        }
        Ok(generation)
    }
}
