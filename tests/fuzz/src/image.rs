//! Images from strangers: true ones, changed in some places and stored so that every hash fits. They are refused, or go
//! on inside the sandbox and within their limits.

use crate::input::{Input, disturb_bytes};
use crate::measure::{self, Turn};
use crate::mutate::disturb_manifest;
use crate::programs::{Seed, Workshop, open, streams};
use crate::scratch::scratch;
use crate::watch::watched;
use std::ops::Range;
use std::sync::Arc;
use wsnap::snapshots::{Manifest, MemoryUpdate, PageSource, Store, StoreError, StoredImage};
use wsnap::wasi::{Files, Grants, SavedState, Wasi};
use wsnap::{Error, Instance, Limits, Outcome, Program, WASI_SECTION};

/// What a resumed program may use.
const LIMITS: Limits = Limits {
    memory_bytes: Some(64 << 20),
    table_elements: Some(100_000),
    trap_on_grow_failure: false,
    descriptors: Some(64),
    volume_bytes: Some(1 << 20),
};

/// So much an image may cost for each of its bytes, and whatever its length is: clones of its frames are compiled.
const BYTES_PER_BYTE: usize = 400;
const BYTES_ALWAYS: usize = 128 << 20;

/// How often what goes on is stopped, stored and resumed again.
const ROUNDS: usize = 2;

/// The bytes of a memory, and behind them zeros.
struct Content<'c>(&'c [u8]);

impl PageSource for Content<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        buffer.fill(0);
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.0.len());
        let bytes = &self.0[from..];
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        Ok(())
    }
}

/// Decodes `bytes`, or what they make of a true image's manifest, and if it is one resumes the image that it is of.
///
/// # Panics
///
/// If something does not hold.
pub fn check_manifest(bytes: &[u8]) {
    let workshop = Workshop::shared();
    let mut turn = measure::turn();
    let mut input = Input::new(bytes);
    let seed = &workshop.seeds[input.index(workshop.seeds.len())];
    let encoded = if input.once_in(4) {
        input.rest().to_vec()
    } else {
        let mut encoded = seed.manifest.encode();
        disturb_bytes(&mut input, &mut encoded);
        encoded
    };
    turn.restart();
    let decoded = Manifest::decode(&encoded);
    turn.took_at_most(4096 + 200 * encoded.len());
    if let Ok(manifest) = decoded {
        assert_eq!(manifest.encode(), encoded, "a manifest has one form");
        resume(workshop, seed, manifest, &mut input, &mut turn);
    }
}

/// Changes a true image as `bytes` say, and resumes it.
///
/// # Panics
///
/// If something does not hold.
pub fn check(bytes: &[u8], frames_only: bool) {
    let workshop = Workshop::shared();
    let mut turn = measure::turn();
    let mut input = Input::new(bytes);
    let seed = &workshop.seeds[input.index(workshop.seeds.len())];
    let mut manifest = seed.manifest.clone();
    disturb_manifest(&mut input, &mut manifest, frames_only);
    resume(workshop, seed, manifest, &mut input, &mut turn);
}

/// Stores an image with this manifest, whose content follows the sizes that it says, and lets it go on as far as it can.
fn resume(
    workshop: &Workshop,
    seed: &Seed,
    manifest: Manifest,
    input: &mut Input<'_>,
    turn: &mut Turn,
) {
    let encoded = manifest.encode();
    if let Ok(decoded) = Manifest::decode(&encoded) {
        assert_eq!(decoded, manifest);
    }
    turn.restart();
    let limit = BYTES_ALWAYS + (encoded.len() + seed.program.wasm().len()) * BYTES_PER_BYTE;
    let directory = scratch();
    let store = Store::open(directory.path().join("store")).expect("a store can be made");
    store
        .put_module(seed.program.wasm())
        .expect("there is room");
    if let Some(image) = publish(&store, seed, manifest) {
        rounds(workshop, &store, &seed.program, image, input);
        turn.took_at_most(limit);
    }
}

fn publish(store: &Store, seed: &Seed, manifest: Manifest) -> Option<Arc<StoredImage>> {
    let lengths = manifest.memories.iter().map(|memory| memory.byte_len());
    let lengths: Vec<u64> = lengths.collect::<Option<_>>()?;
    let content = |index| Content(seed.memories.get(index).map_or(&[], Vec::as_slice));
    let contents: Vec<Content<'_>> = (0..lengths.len()).map(content).collect();
    let dirty = lengths.iter().zip(&contents).map(|(length, content)| {
        let end = (content.0.len() as u64).min(*length).next_multiple_of(4096);
        Vec::from_iter((end > 0).then_some(0..end))
    });
    let dirty: Vec<Vec<Range<u64>>> = dirty.collect();
    let updates = lengths.iter().zip(&contents).zip(&dirty);
    let updates: Vec<MemoryUpdate<'_>> = updates
        .map(|((length, content), dirty)| MemoryUpdate {
            base: None,
            byte_len: *length,
            dirty,
            source: content,
        })
        .collect();
    match store.publish_update(manifest, &updates) {
        Ok(published) => {
            published.image.verify().expect("it has just been stored");
            Some(Arc::new(published.image))
        }
        Err(StoreError::Unencodable { .. } | StoreError::Missing { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Resumes the image, lets it run, stores it where it stands and resumes that.
fn rounds(
    workshop: &Workshop,
    store: &Store,
    program: &Program,
    mut image: Arc<StoredImage>,
    input: &mut Input<'_>,
) {
    for _ in 0..ROUNDS {
        let Some(mut instance) = restore(workshop, program, &image, input) else {
            return;
        };
        instance
            .stop_at_safepoint(input.byte().into())
            .expect("its safepoints can be counted");
        let outcome = watched(Some(instance.handle()), || instance.run());
        match outcome {
            Ok(Outcome::Suspended(_)) => {}
            Ok(_) | Err(Error::Image(_) | Error::FramesFull { .. } | Error::Arguments { .. }) => {
                return;
            }
            Err(error) => panic!("{error:?}"),
        }
        match watched(None, || {
            instance
                .snapshot()
                .and_then(|snapshot| snapshot.store(store))
        }) {
            Ok(id) => image = open(store, id),
            Err(Error::NotStorable(_) | Error::Wasi(_)) => return,
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// An instance in the state of the image, unless it is refused for what it says.
fn restore(
    workshop: &Workshop,
    program: &Program,
    image: &Arc<StoredImage>,
    input: &mut Input<'_>,
) -> Option<Instance> {
    let state = image.manifest().host.get(WASI_SECTION)?;
    let state = SavedState::decode(state).ok()?;
    let grants = Grants {
        preopens: workshop.preopens(),
        streams: streams(),
        files: [Files::RequireSame, Files::Reopen, Files::SkipMissing][input.index(3)],
        ..Grants::default()
    };
    let wasi = Wasi::restore(&state, grants).ok()?;
    let is_prepared = input.once_in(2);
    let resumed = watched(None, || match is_prepared {
        true => program.prepare(image.clone())?.resume(wasi),
        false => program.resume(image, wasi),
    });
    let limited = resumed.and_then(|mut instance| {
        instance.set_limits(LIMITS)?;
        Ok(instance)
    });
    match limited {
        Ok(mut instance) => {
            instance.keep_own_snapshots(|snapshot| snapshot.is_ok());
            Some(instance)
        }
        Err(Error::Image(_) | Error::Own(_) | Error::Mapping { .. } | Error::Limit(_)) => None,
        Err(error) => panic!("{error:?}"),
    }
}
