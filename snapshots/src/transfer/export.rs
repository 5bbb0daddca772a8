//! From a store into a stream.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::thread;

use super::error::ExportError;
use super::frame::{DATA_SIZE, Encoder, FrameWriter, Kind, LEAVES_PER_FRAME};
use super::leaves::{self, ChangedLeaf, Source};
use super::plan::{self, PlannedImage};
use super::{ExportOptions, Exported, Progress};
use crate::bytes::Writer;
use crate::id::{ImageId, LeafHash, MemoryHash, ModuleHash};
use crate::parallel;
use crate::store::{Store, StoredImage, check_name};

/// So many frames are in memory at once at most, whatever the number of cores.
const FRAMES_IN_FLIGHT_MAX: usize = 64;

pub(super) fn export(
    store: &Store,
    ids: &[ImageId],
    options: &ExportOptions,
    to: impl Write,
    progress: &mut dyn FnMut(Progress),
) -> Result<Exported, ExportError> {
    let mut requested = ids.to_vec();
    requested.sort_unstable();
    requested.dedup();
    for (name, image) in &options.names {
        check_name(name)?;
        if requested.binary_search(image).is_err() {
            return Err(ExportError::NameOfOtherImage {
                name: name.clone(),
                image: *image,
            });
        }
    }
    // Ancestors can be too many to keep them all open.
    let _lock = match options.ancestors {
        true => Some(store.lock_shared()?),
        false => None,
    };
    // Open images are in use: nobody deletes what is being sent.
    let open = requested
        .iter()
        .map(|id| store.load(*id))
        .collect::<Result<Vec<_>, _>>()?;
    let records;
    let plan = if options.ancestors {
        records = store.records()?;
        plan::with_ancestors(&open, &records)
    } else {
        plan::without_ancestors(&open)
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut sender = Sender {
        store,
        writer: FrameWriter::start(to)?,
        encoder: Encoder::new(options.level),
        progress,
        content_bytes: 0,
        frames_in_flight: (2 * cores).min(FRAMES_IN_FLIGHT_MAX),
        modules: HashSet::new(),
        memories: HashSet::new(),
        last: None,
    };
    for image in &plan.images {
        sender.image(image)?;
    }
    for record in &plan.records {
        let mut content = record.id.0.to_vec();
        content.extend(record.encode());
        sender.frame(Kind::Record, &content)?;
    }
    for (name, id) in &options.names {
        let mut content = Writer::default();
        content.sized(name.as_bytes());
        content.raw(&id.0);
        sender.frame(Kind::Name, content.as_bytes())?;
    }
    sender.frame(Kind::End, &[])?;
    Ok(Exported {
        images: plan.images.iter().map(|image| image.id).collect(),
        records: plan.records.len() as u64,
        content_bytes: sender.content_bytes,
        stream_bytes: sender.writer.finish()?,
    })
}

struct Sender<'a, W> {
    store: &'a Store,
    writer: FrameWriter<W>,
    encoder: Encoder,
    progress: &'a mut dyn FnMut(Progress),
    content_bytes: u64,
    frames_in_flight: usize,
    /// What has been sent.
    modules: HashSet<ModuleHash>,
    memories: HashSet<MemoryHash>,
    /// The image sent last: most often the next one is like it.
    last: Option<StoredImage>,
}

impl<W: Write> Sender<'_, W> {
    fn frame(&mut self, kind: Kind, content: &[u8]) -> Result<(), ExportError> {
        let frame = self.encoder.frame(kind, content)?;
        self.send(&frame, content.len())
    }

    fn send(&mut self, frame: &[u8], content_len: usize) -> Result<(), ExportError> {
        self.writer.frame(frame)?;
        self.content_bytes += content_len as u64;
        (self.progress)(Progress {
            stream_bytes: self.writer.written(),
            content_bytes: self.content_bytes,
        });
        Ok(())
    }

    /// Sends an image, after all that it needs and that hasn't been sent yet.
    fn image(&mut self, planned: &PlannedImage) -> Result<(), ExportError> {
        let image = self.store.load(planned.id)?;
        let like = match planned.like {
            None => None,
            Some(like) => match self.last.take().filter(|last| last.id() == like) {
                Some(last) => Some(last),
                None => Some(self.store.load(like)?),
            },
        };
        let manifest = image.manifest();
        if self.modules.insert(manifest.module) {
            self.module(manifest.module)?;
        }
        for index in 0..manifest.memories.len() {
            if self.memories.insert(manifest.memories[index].content) {
                self.memory(&image, index, like.as_ref())?;
            }
        }
        let bytes = manifest.encode();
        let mut head = Writer::default();
        head.raw(&image.id().0);
        head.u8(u8::from(planned.requested));
        head.count(bytes.len());
        self.frame(Kind::Image, head.as_bytes())?;
        for piece in bytes.chunks(DATA_SIZE) {
            self.frame(Kind::Data, piece)?;
        }
        self.last = Some(image);
        Ok(())
    }

    fn module(&mut self, hash: ModuleHash) -> Result<(), ExportError> {
        let bytes = self.store.module(hash)?;
        let mut head = Writer::default();
        head.raw(&hash.0);
        head.count(bytes.len());
        self.frame(Kind::Module, head.as_bytes())?;
        for piece in bytes.chunks(DATA_SIZE) {
            self.frame(Kind::Data, piece)?;
        }
        Ok(())
    }

    fn memory(
        &mut self,
        image: &StoredImage,
        index: usize,
        like: Option<&StoredImage>,
    ) -> Result<(), ExportError> {
        let source = source_of(image, index);
        let whole = changed_leaves(source, None);
        let base = like
            .filter(|like| index < like.memories().len())
            .map(|like| source_of(like, index))
            .filter(|base| base.memory.byte_len() <= source.memory.byte_len())
            .map(|base| (base, changed_leaves(source, Some(base))))
            .filter(|(_, changed)| changed.len() < whole.len());
        let (base, changed) = match base {
            Some((base, changed)) => (Some(base), changed),
            None => (None, whole),
        };
        let mut head = Writer::default();
        head.raw(&source.content.0);
        head.u64(source.memory.byte_len());
        head.raw(&base.map_or(MemoryHash::default(), |base| base.content).0);
        head.count(changed.len());
        self.frame(Kind::Memory, head.as_bytes())?;
        for batch in changed.chunks(LEAVES_PER_FRAME * self.frames_in_flight) {
            let encoder = &self.encoder;
            let frames = parallel::map_ranges(batch.len(), LEAVES_PER_FRAME, |range| {
                let content = leaves::content(&batch[range], source, base)?;
                let frame = encoder.frame(Kind::Leaves, &content)?;
                Ok::<_, ExportError>((frame, content.len()))
            });
            for frame in frames {
                let (frame, content_len) = frame?;
                self.send(&frame, content_len)?;
            }
        }
        Ok(())
    }
}

fn source_of(image: &StoredImage, index: usize) -> Source<'_> {
    Source {
        image: image.id(),
        index,
        content: image.manifest().memories[index].content,
        memory: &image.memories()[index],
    }
}

/// The leaves that a memory has other than `base`, or than zeros, in ascending order.
fn changed_leaves(of: Source<'_>, base: Option<Source<'_>>) -> Vec<ChangedLeaf> {
    let mut changed = BTreeMap::new();
    if let Some(base) = base {
        for (index, hash) in base.memory.tree().leaves() {
            changed.insert(index, (LeafHash::ZERO, hash));
        }
    }
    for (index, hash) in of.memory.tree().leaves() {
        changed.entry(index).or_insert((hash, LeafHash::ZERO)).0 = hash;
    }
    let changed = changed.into_iter().filter(|(_, (hash, base))| hash != base);
    changed
        .map(|(index, (hash, base))| ChangedLeaf { index, hash, base })
        .collect()
}
