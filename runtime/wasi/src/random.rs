//! `random_get`: fresh bytes of the host, or the seeded stream of a deterministic program.

use crate::calls::Outcome;
use crate::memory::Memory;
use crate::wasi::Wasi;
use rustix::rand::{GetRandomFlags, getrandom};

/// Where random bytes come from.
pub(crate) enum Random {
    /// The host. Nothing is saved: two resumes of one image draw different bytes.
    Host,
    /// BLAKE3's extendable output under the key `seed`, of which `position` bytes have been drawn.
    Seeded { seed: [u8; 32], position: u64 },
}

impl Random {
    pub(crate) fn fill(&mut self, mut buffer: &mut [u8]) -> rustix::io::Result<()> {
        match self {
            Random::Host => {
                while !buffer.is_empty() {
                    let filled = rustix::io::retry_on_intr(|| {
                        getrandom(&mut *buffer, GetRandomFlags::empty())
                    })?;
                    buffer = &mut buffer[filled..];
                }
            }
            Random::Seeded { seed, position } => {
                let mut stream = blake3::Hasher::new_keyed(seed).finalize_xof();
                stream.set_position(*position);
                stream.fill(buffer);
                *position = stream.position();
            }
        }
        Ok(())
    }
}

pub(crate) fn random_get(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    buffer: u32,
    length: u32,
) -> Outcome {
    Ok(wasi.random.fill(memory.bytes_mut(buffer, length)?)?)
}
