//! The saved host state of a program: what it holds, and its bytes.
//!
//! Nothing of the host is in it: no host path, inode number, process id; and of a deterministic program no time
//! either. Equal states have equal bytes, and [`SavedState::decode`] accepts no bytes but those of some state.
//! The layout is documented in `STATE.md` beside this package's `Cargo.toml`.

mod descriptor;

pub use descriptor::{
    Evidence, Fingerprint, SavedConnection, SavedDescriptor, SavedDirectory, SavedFile,
    SavedFileKind, SavedListener, SavedLost, SavedVolumeDirectory, SavedVolumeFile,
};

use crate::bytes::{Reader, Writer};
use crate::carried::{CarriedExtent, CarriedFile};
use crate::descriptors::DESCRIPTORS_MAX;
use crate::volume::{Inode, SavedVolume};
use std::collections::{BTreeMap, BTreeSet};

/// The version of the layout that this package writes, and the only one that it reads.
pub const STATE_VERSION: u32 = 1;

/// The host state of a program at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedState {
    /// The arguments, without their NUL.
    pub args: Vec<Vec<u8>>,
    /// The environment: `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// The guest's names of the directories that it was granted.
    pub preopens: Vec<String>,
    /// What the guest's monotonic clock showed, in nanoseconds; the whole clock of a deterministic program.
    pub monotonic_ns: u64,
    /// The random stream of a deterministic program; none of others.
    pub random: Option<SavedRandom>,
    /// A `poll_oneoff` that was suspended.
    pub pending: Option<PendingWait>,
    /// The content of files that were removed while open, in the order of their first descriptors.
    pub carried: Vec<CarriedFile>,
    /// The volumes, in the order in which they were granted.
    pub volumes: Vec<SavedVolume>,
    /// What was open, by number.
    pub descriptors: BTreeMap<u32, SavedDescriptor>,
}

/// The random stream of a deterministic program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedRandom {
    /// The key of the stream.
    pub seed: [u8; 32],
    /// How many bytes have been drawn.
    pub position: u64,
}

/// A `poll_oneoff` that was suspended: when it is made again, its relative timeouts count from when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingWait {
    /// The guest address of the subscriptions.
    pub subscriptions: u32,
    /// The guest address for the events.
    pub events: u32,
    /// The number of subscriptions.
    pub subscriptions_length: u32,
    /// The BLAKE3 hash of the subscriptions' bytes.
    pub subscriptions_hash: [u8; 32],
    /// When the call began, on the guest's monotonic clock.
    pub started_ns: u64,
}

impl PendingWait {
    /// Whether `other` is this call made again.
    pub(crate) fn is_same_call(&self, other: &PendingWait) -> bool {
        let started_ns = self.started_ns;
        PendingWait {
            started_ns,
            ..*other
        } == *self
    }
}

/// Why bytes are not a saved state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// They were written by another version of wsnap.
    #[error(
        "the saved host state has version {found}, and this version of wsnap reads {STATE_VERSION}: \
         resume it with the version that saved it"
    )]
    Version {
        /// The version found.
        found: u32,
    },
    /// They end too early.
    #[error("the saved host state is damaged: it ends inside a field that begins at byte {offset}")]
    Truncated {
        /// Where the field begins that is not there.
        offset: usize,
    },
    /// A field has a value that it cannot have.
    #[error("the saved host state is damaged: {what} before byte {offset}")]
    Invalid {
        /// Where the field ends.
        offset: usize,
        /// What is wrong.
        what: &'static str,
    },
}

const HAS_SEED: u8 = 1 << 0;
const HAS_PENDING: u8 = 1 << 1;

impl SavedState {
    /// The one sequence of bytes that stands for this state.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with(&self.volumes, SavedVolume::encode)
    }

    /// As [`SavedState::encode`], but for the volumes, which `encode` writes.
    pub(crate) fn encode_with<V>(
        &self,
        volumes: &[V],
        encode: impl Fn(&V, &mut Writer),
    ) -> Vec<u8> {
        let mut to = Writer::default();
        to.u32(STATE_VERSION);
        let seed = self.random.map_or(0, |_| HAS_SEED);
        to.u8(seed | self.pending.map_or(0, |_| HAS_PENDING));
        to.list(&self.args, |to, arg| to.bytes(arg));
        to.list(&self.env, |to, variable| to.bytes(variable));
        to.list(&self.preopens, |to, path| to.bytes(path.as_bytes()));
        to.u64(self.monotonic_ns);
        if let Some(random) = &self.random {
            to.raw(&random.seed);
            to.u64(random.position);
        }
        if let Some(pending) = &self.pending {
            to.u32(pending.subscriptions);
            to.u32(pending.events);
            to.u32(pending.subscriptions_length);
            to.raw(&pending.subscriptions_hash);
            to.u64(pending.started_ns);
        }
        to.list(&self.carried, |to, content| content.encode(to));
        to.list(volumes, |to, volume| encode(volume, to));
        to.list(&self.descriptors, |to, (fd, descriptor)| {
            to.u32(*fd);
            descriptor.encode(to);
        });
        to.finish()
    }

    /// Reads what [`encode`](SavedState::encode) wrote.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for any other bytes. Memory is used in proportion to the bytes that are there, whatever they say.
    pub fn decode(bytes: &[u8]) -> Result<SavedState, DecodeError> {
        let mut from = Reader::new(bytes);
        let found = from.u32()?;
        if found != STATE_VERSION {
            return Err(DecodeError::Version { found });
        }
        let has = from.u8()?;
        if has & !(HAS_SEED | HAS_PENDING) != 0 {
            return Err(from.invalid("unknown flags"));
        }
        let args = from.list(string)?;
        let env = from.list(string)?;
        let preopens = from.list(|from| from.utf8())?;
        let monotonic_ns = from.u64()?;
        let random = (has & HAS_SEED != 0).then(|| saved_random(&mut from));
        let random = random.transpose()?;
        let pending = (has & HAS_PENDING != 0).then(|| pending_wait(&mut from));
        let pending = pending.transpose()?;
        let carried = from.list(CarriedFile::decode)?;
        let volumes = from.list(SavedVolume::decode)?;
        let names: BTreeSet<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
        if names.len() < volumes.len() {
            return Err(from.invalid("two volumes of one name"));
        }
        // Contents are numbered in the order of the descriptors that need them.
        let mut needed = 0;
        let mut descriptors = BTreeMap::new();
        for _ in 0..from.count()? {
            let fd = from.u32()?;
            let last = descriptors.last_key_value().map(|(&last, _)| last);
            if fd >= DESCRIPTORS_MAX || last.is_some_and(|last| fd <= last) {
                return Err(from.invalid("a descriptor's number is out of order or too large"));
            }
            let descriptor = SavedDescriptor::decode(&mut from, preopens.len())?;
            if let Some(index) = descriptor.carried() {
                if index > needed {
                    return Err(from.invalid("a removed file's content out of order"));
                }
                needed = needed.max(index + 1);
            }
            if !fits_volumes(&descriptor, &volumes) {
                return Err(from.invalid("a descriptor of what is in no volume"));
            }
            descriptors.insert(fd, descriptor);
        }
        if !nameless_are_open(&volumes, &descriptors) {
            return Err(from.invalid("a file in a volume without a name or a descriptor"));
        }
        if carried.len() as u64 != needed {
            return Err(
                from.invalid("the content of a removed file is missing, or needed by nothing")
            );
        }
        from.finish()?;
        Ok(SavedState {
            args,
            env,
            preopens,
            monotonic_ns,
            random,
            pending,
            carried,
            volumes,
            descriptors,
        })
    }

    /// The guest's path of what is at `path` below the granted directory number `preopen`.
    pub fn guest_path(&self, preopen: u32, path: &str) -> String {
        let index = usize::try_from(preopen).ok();
        let root = index.and_then(|index| self.preopens.get(index));
        crate::wasi::join_guest_path(root.map_or("", String::as_str), path)
    }
}

/// An argument or variable, which the guest receives with a NUL at its end.
fn string(from: &mut Reader<'_>) -> Result<Vec<u8>, DecodeError> {
    let bytes = from.bytes()?;
    if bytes.contains(&0) {
        return Err(from.invalid("a NUL inside an argument or variable"));
    }
    Ok(bytes.to_vec())
}

/// So many bytes no program has drawn, in whatever time it had.
const DRAWN_BYTES_MAX: u64 = i64::MAX as u64;

fn saved_random(from: &mut Reader<'_>) -> Result<SavedRandom, DecodeError> {
    let random = SavedRandom {
        seed: from.raw()?,
        position: from.u64()?,
    };
    // Where the stream ends, asking for its position would overflow.
    if random.position > DRAWN_BYTES_MAX {
        return Err(from.invalid("more random bytes than anybody can have drawn"));
    }
    Ok(random)
}

fn pending_wait(from: &mut Reader<'_>) -> Result<PendingWait, DecodeError> {
    Ok(PendingWait {
        subscriptions: from.u32()?,
        events: from.u32()?,
        subscriptions_length: from.u32()?,
        subscriptions_hash: from.raw()?,
        started_ns: from.u64()?,
    })
}

impl CarriedFile {
    fn encode(&self, to: &mut Writer) {
        to.u64(self.size_bytes);
        to.u8(self.modified_ns.is_some().into());
        if let Some(modified_ns) = self.modified_ns {
            to.raw(&modified_ns.to_le_bytes());
        }
        to.list(&self.extents, |to, extent| {
            to.u64(extent.offset);
            to.bytes(&extent.bytes);
        });
    }

    fn decode(from: &mut Reader<'_>) -> Result<CarriedFile, DecodeError> {
        let size_bytes = from.u64()?;
        let modified_ns = match from.u8()? {
            0 => None,
            1 => Some(i64::from_le_bytes(from.raw()?)),
            _ => return Err(from.invalid("a time that is neither there nor absent")),
        };
        let extents = from.list(|from| {
            Ok(CarriedExtent {
                offset: from.u64()?,
                bytes: from.bytes()?.to_vec(),
            })
        })?;
        let content = CarriedFile {
            size_bytes,
            modified_ns,
            extents,
        };
        if !content.is_canonical() {
            return Err(from.invalid("the content of a removed file is not in its one form"));
        }
        Ok(content)
    }
}

/// Whether what a descriptor means in a volume is there, and of its kind.
fn fits_volumes(descriptor: &SavedDescriptor, volumes: &[SavedVolume]) -> bool {
    let Some((volume, inode)) = descriptor.in_volume() else {
        return true;
    };
    let tree = volumes.get(volume).map(|volume| &volume.tree);
    tree.is_some_and(|tree| match descriptor {
        SavedDescriptor::VolumeFile(_) => tree.file(inode).is_some(),
        _ => tree.directory(inode).is_some(),
    })
}

/// Whether everything in volumes that has no name is open.
fn nameless_are_open(
    volumes: &[SavedVolume],
    descriptors: &BTreeMap<u32, SavedDescriptor>,
) -> bool {
    let open = descriptors.values().filter_map(SavedDescriptor::in_volume);
    let open: BTreeSet<(usize, Inode)> = open.collect();
    let mut numbered = volumes.iter().enumerate();
    numbered.all(|(index, volume)| {
        let mut nameless = volume.tree.nameless();
        nameless.all(|inode| open.contains(&(index, inode)))
    })
}
