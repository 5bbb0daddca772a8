//! Takes a stream apart and checks every byte of it. Nothing here changes the store.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::thread;

use super::error::{ImportError, StreamDamage};
use super::frame::{DATA_SIZE, Frame, FrameReader, Kind, LEAVES_PER_FRAME, damaged as damaged_at};
use super::leaves::{self, Received};
use super::spool::{Piece, Spool, SpooledMemory};
use super::{ImportOptions, Progress};
use crate::bytes::Reader;
use crate::error::DecodeError;
use crate::id::{ImageId, MemoryHash, ModuleHash, RecordId};
use crate::manifest::{MEMORY_LEN_MAX, Manifest};
use crate::memory_tree::LEAF_SIZE;
use crate::parallel;
use crate::record::{RECORD_LEN_MAX, Record};
use crate::store::{CONTENT_LEN_MAX, Store, check_name};

/// So many frames are in memory at once at most, whatever the number of cores: about 256 MiB with their content.
const FRAMES_IN_FLIGHT_MAX: usize = 64;

/// A stream that has been checked to its last byte.
pub(super) struct Shipment {
    pub spool: Spool,
    pub modules: HashMap<ModuleHash, Piece>,
    pub memories: HashMap<MemoryHash, SpooledMemory>,
    /// In the order of the stream, in which a memory's base belongs to an image before the memory's own.
    pub images: Vec<SpooledImage>,
    /// Parents before their children.
    pub records: Vec<(RecordId, Piece)>,
    /// Ascending.
    pub names: Vec<(String, ImageId)>,
    pub stream_bytes: u64,
}

pub(super) struct SpooledImage {
    pub id: ImageId,
    pub requested: bool,
    pub manifest: Piece,
}

/// Reads a whole stream.
pub(super) fn receive(
    store: &Store,
    from: impl Read,
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Shipment, ImportError> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut receiver = Receiver {
        reader: FrameReader::start(from)?,
        progress,
        content_bytes: 0,
        content_bytes_max: options.content_bytes_max,
        frames_in_flight: (2 * cores).min(FRAMES_IN_FLIGHT_MAX),
        shipment: Shipment {
            spool: Spool::create(store)?,
            modules: HashMap::new(),
            memories: HashMap::new(),
            images: Vec::new(),
            records: Vec::new(),
            names: Vec::new(),
            stream_bytes: 0,
        },
        image_ids: HashSet::new(),
        record_ids: HashSet::new(),
        parent_ids: HashSet::new(),
        waiting_module: None,
        waiting_memories: HashSet::new(),
        stage: Stage::Images,
    };
    while receiver.item()? {}
    receiver.shipment.stream_bytes = receiver.reader.finish()?;
    Ok(receiver.shipment)
}

/// What may come next. Later stages do not lead back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Images,
    Records,
    Names,
}

impl Stage {
    fn expected(self) -> &'static str {
        match self {
            Self::Images => "a module, memory, image, record, name or the end",
            Self::Records => "a record, name or the end",
            Self::Names => "a name or the end",
        }
    }
}

struct Receiver<'a, R> {
    reader: FrameReader<R>,
    progress: &'a mut dyn FnMut(Progress),
    content_bytes: u64,
    content_bytes_max: u64,
    frames_in_flight: usize,
    shipment: Shipment,
    image_ids: HashSet<ImageId>,
    record_ids: HashSet<RecordId>,
    /// The parents of all records so far.
    parent_ids: HashSet<RecordId>,
    /// The module that was sent for the next image.
    waiting_module: Option<ModuleHash>,
    /// The memories that were sent for the next image.
    waiting_memories: HashSet<MemoryHash>,
    stage: Stage,
}

impl<R: Read> Receiver<'_, R> {
    /// Takes the next item with all that belongs to it and tells whether more follow.
    fn item(&mut self) -> Result<bool, ImportError> {
        let frame = self.frame()?;
        let stage = match frame.kind {
            Kind::Module | Kind::Memory | Kind::Image => Stage::Images,
            Kind::Record => Stage::Records,
            Kind::Name | Kind::End => Stage::Names,
            Kind::Leaves | Kind::Data => return Err(frame.unexpected(self.stage.expected())),
        };
        if stage < self.stage {
            return Err(frame.unexpected(self.stage.expected()));
        }
        if stage > Stage::Images {
            self.nothing_waits(&frame)?;
        }
        self.stage = stage;
        match frame.kind {
            Kind::Module => self.module(frame)?,
            Kind::Memory => self.memory(frame)?,
            Kind::Image => self.image(frame)?,
            Kind::Record => self.record(frame)?,
            Kind::Name => self.name(frame)?,
            _ => {
                return fields(frame.offset, &frame.content()?, |_| Ok(())).map(|()| false);
            }
        }
        Ok(true)
    }

    fn frame(&mut self) -> Result<Frame, ImportError> {
        let frame = self.reader.frame()?;
        self.content_bytes += frame.content_len() as u64;
        if self.content_bytes > self.content_bytes_max {
            return Err(ImportError::TooLarge {
                offset: frame.offset,
                limit: self.content_bytes_max,
            });
        }
        (self.progress)(Progress {
            stream_bytes: self.reader.offset(),
            content_bytes: self.content_bytes,
        });
        Ok(frame)
    }

    fn nothing_waits(&self, frame: &Frame) -> Result<(), ImportError> {
        if self.waiting_module.is_some() {
            return Err(frame.damaged(StreamDamage::Unused { what: "module" }));
        }
        if !self.waiting_memories.is_empty() {
            return Err(frame.damaged(StreamDamage::Unused { what: "memory" }));
        }
        Ok(())
    }

    fn module(&mut self, frame: Frame) -> Result<(), ImportError> {
        let offset = frame.offset;
        let (expected, byte_len) = fields(offset, &frame.content()?, |reader| {
            Ok((
                ModuleHash(reader.array("module hash")?),
                reader.u64("module size")?,
            ))
        })?;
        if self.waiting_module.is_some() {
            return Err(damaged_at(offset, StreamDamage::Unused { what: "module" }));
        }
        if self.shipment.modules.contains_key(&expected) {
            return Err(damaged_at(
                offset,
                StreamDamage::Repeated { what: "module" },
            ));
        }
        let (piece, hash) = self.data(offset, "module", byte_len)?;
        let found = ModuleHash(hash);
        if found != expected {
            return Err(damaged_at(offset, StreamDamage::Module { expected, found }));
        }
        self.shipment.modules.insert(expected, piece);
        self.waiting_module = Some(expected);
        Ok(())
    }

    /// Spools the data frames of an item announced at `offset` and returns their place and hash.
    fn data(
        &mut self,
        offset: u64,
        what: &'static str,
        byte_len: u64,
    ) -> Result<(Piece, [u8; 32]), ImportError> {
        limited(offset, what, byte_len, CONTENT_LEN_MAX)?;
        let mut piece = self.shipment.spool.next_piece();
        let mut hasher = blake3::Hasher::new();
        while piece.byte_len < byte_len {
            let frame = self.frame()?;
            if frame.kind != Kind::Data {
                return Err(frame.unexpected("data"));
            }
            let expected = (byte_len - piece.byte_len).min(DATA_SIZE as u64);
            check_length(&frame, what, expected)?;
            let content = frame.content()?;
            hasher.update(&content);
            self.shipment.spool.append(&content)?;
            piece.byte_len += expected;
        }
        Ok((piece, *hasher.finalize().as_bytes()))
    }

    fn memory(&mut self, frame: Frame) -> Result<(), ImportError> {
        let offset = frame.offset;
        let damaged = |damage| damaged_at(offset, damage);
        let (expected, byte_len, base, leaf_count) = fields(offset, &frame.content()?, |reader| {
            Ok((
                MemoryHash(reader.array("memory hash")?),
                reader.u64("memory size")?,
                MemoryHash(reader.array("base")?),
                reader.u64("number of leaves")?,
            ))
        })?;
        limited(offset, "memory size", byte_len, MEMORY_LEN_MAX)?;
        let leaves_max = byte_len.div_ceil(LEAF_SIZE as u64);
        limited(offset, "number of leaves", leaf_count, leaves_max)?;
        if self.shipment.memories.contains_key(&expected) {
            return Err(damaged(StreamDamage::Repeated { what: "memory" }));
        }
        let mut memory = self.start_memory(byte_len, base).map_err(damaged)?;
        self.leaves(&mut memory, leaf_count)?;
        let found = memory.root();
        if found != expected {
            return Err(damaged(StreamDamage::Memory { expected, found }));
        }
        self.shipment.memories.insert(expected, memory);
        self.waiting_memories.insert(expected);
        Ok(())
    }

    /// A memory without its own leaves. The base must belong to an image before: its pages are published by then.
    fn start_memory(&self, byte_len: u64, base: MemoryHash) -> Result<SpooledMemory, StreamDamage> {
        if base == MemoryHash::default() {
            return Ok(SpooledMemory::new(byte_len, None));
        }
        let found = self.shipment.memories.get(&base);
        let Some(memory) = found.filter(|_| !self.waiting_memories.contains(&base)) else {
            return Err(StreamDamage::Unknown { what: "base" });
        };
        if byte_len < memory.byte_len {
            return Err(StreamDamage::ShorterThanBase {
                found: byte_len,
                base: memory.byte_len,
            });
        }
        Ok(SpooledMemory::new(byte_len, Some((base, memory))))
    }

    /// Takes the leaves of a memory, as many frames at a time as there are cores to check them.
    fn leaves(&mut self, memory: &mut SpooledMemory, leaf_count: u64) -> Result<(), ImportError> {
        let mut rest = leaf_count;
        let mut last = None;
        while rest > 0 {
            let mut batch = Vec::new();
            while rest > 0 && batch.len() < self.frames_in_flight {
                let frame = self.frame()?;
                if frame.kind != Kind::Leaves {
                    return Err(frame.unexpected("leaves"));
                }
                let count = rest.min(LEAVES_PER_FRAME as u64);
                rest -= count;
                batch.push((frame, count as usize));
            }
            let spool = &self.shipment.spool;
            let checked = parallel::map_ranges(batch.len(), 1, |range| {
                let (frame, count) = &batch[range.start];
                leaves::check(frame, *count, spool, memory)
            });
            for received in checked {
                self.spool_leaves(memory, received?, &mut last)?;
            }
        }
        Ok(())
    }

    fn spool_leaves(
        &mut self,
        memory: &mut SpooledMemory,
        received: Received<'_>,
        last: &mut Option<u32>,
    ) -> Result<(), ImportError> {
        let mut page = self.shipment.spool.append(received.pages())?;
        for leaf in &received.leaves {
            if let Some(previous) = last.filter(|previous| *previous >= leaf.index) {
                return Err(damaged_at(
                    received.offset,
                    StreamDamage::LeafOrder {
                        leaf: leaf.index,
                        previous,
                    },
                ));
            }
            *last = Some(leaf.index);
            memory.set_leaf(leaf.index, leaf.mask, leaf.hash, page);
            page += u64::from(leaf.mask.count_ones());
        }
        Ok(())
    }

    fn image(&mut self, frame: Frame) -> Result<(), ImportError> {
        let offset = frame.offset;
        let damaged = |damage| damaged_at(offset, damage);
        let (expected, requested, byte_len) = fields(offset, &frame.content()?, |reader| {
            let id = ImageId(reader.array("image id")?);
            let at = reader.offset();
            let requested = reader.u8("request")?;
            if requested > 1 {
                return Err(DecodeError::Discriminant {
                    what: "request",
                    offset: at,
                    found: requested,
                });
            }
            Ok((id, requested == 1, reader.u64("manifest size")?))
        })?;
        if !self.image_ids.insert(expected) {
            return Err(damaged(StreamDamage::Repeated { what: "image" }));
        }
        let (manifest, hash) = self.data(offset, "manifest", byte_len)?;
        let found = ImageId(hash);
        if found != expected {
            return Err(damaged(StreamDamage::Image { expected, found }));
        }
        let bytes = self.shipment.spool.read(manifest)?;
        let decoded = Manifest::decode(&bytes).map_err(|error| damaged(error.into()))?;
        self.check_parts(&decoded).map_err(damaged)?;
        self.shipment.images.push(SpooledImage {
            id: expected,
            requested,
            manifest,
        });
        Ok(())
    }

    /// Checks that all that a manifest names has been sent, and nothing else since the image before.
    fn check_parts(&mut self, manifest: &Manifest) -> Result<(), StreamDamage> {
        if !self.shipment.modules.contains_key(&manifest.module) {
            return Err(StreamDamage::Unknown { what: "module" });
        }
        if self
            .waiting_module
            .take()
            .is_some_and(|module| module != manifest.module)
        {
            return Err(StreamDamage::Unused { what: "module" });
        }
        let mut used = HashSet::new();
        for state in &manifest.memories {
            let Some(memory) = self.shipment.memories.get(&state.content) else {
                return Err(StreamDamage::Unknown { what: "memory" });
            };
            // Decoding has checked that the length can be computed.
            let found = state.byte_len().unwrap_or(u64::MAX);
            if found != memory.byte_len {
                return Err(StreamDamage::MemoryLength {
                    expected: memory.byte_len,
                    found,
                });
            }
            used.insert(state.content);
        }
        let mut waiting = self.waiting_memories.drain();
        if !waiting.all(|memory| used.contains(&memory)) {
            return Err(StreamDamage::Unused { what: "memory" });
        }
        Ok(())
    }

    fn record(&mut self, frame: Frame) -> Result<(), ImportError> {
        let content = frame.content()?;
        let Some((id, bytes)) = content.split_first_chunk() else {
            return Err(frame.damaged(DecodeError::Truncated {
                what: "record id",
                offset: 0,
            }));
        };
        let id = RecordId(*id);
        limited(frame.offset, "record", bytes.len() as u64, RECORD_LEN_MAX)?;
        let record = Record::decode(bytes, id)
            .map_err(|damage| frame.damaged(StreamDamage::Record(damage)))?;
        // It is written anew by the store, perhaps a little longer.
        let encoded = record.encode();
        limited(frame.offset, "record", encoded.len() as u64, RECORD_LEN_MAX)?;
        self.check_record(&record)
            .map_err(|damage| frame.damaged(damage))?;
        let mut piece = self.shipment.spool.next_piece();
        self.shipment.spool.append(&encoded)?;
        piece.byte_len = encoded.len() as u64;
        self.shipment.records.push((id, piece));
        Ok(())
    }

    /// A parent may be unknown, since records can be lost, but it must not come later: then records could form a circle.
    fn check_record(&mut self, record: &Record) -> Result<(), StreamDamage> {
        if let Some(name) = &record.name {
            check_program(name)?;
        }
        if !self.image_ids.contains(&record.image) {
            return Err(StreamDamage::Unknown { what: "image" });
        }
        if !self.record_ids.insert(record.id) {
            return Err(StreamDamage::Repeated { what: "record" });
        }
        self.parent_ids.extend(record.parent);
        if self.parent_ids.contains(&record.id) {
            return Err(StreamDamage::ParentBehind { record: record.id });
        }
        Ok(())
    }

    fn name(&mut self, frame: Frame) -> Result<(), ImportError> {
        let offset = frame.offset;
        let damaged = |damage| damaged_at(offset, damage);
        let (name, id) = fields(offset, &frame.content()?, |reader| {
            Ok((
                reader.text("name")?.to_owned(),
                ImageId(reader.array("image id")?),
            ))
        })?;
        check_program(&name).map_err(damaged)?;
        if !self.image_ids.contains(&id) {
            return Err(damaged(StreamDamage::Unknown { what: "image" }));
        }
        if let Some((last, _)) = self.shipment.names.last()
            && *last >= name
        {
            return Err(damaged(StreamDamage::Repeated { what: "name" }));
        }
        self.shipment.names.push((name, id));
        Ok(())
    }
}

fn check_program(name: &str) -> Result<(), StreamDamage> {
    check_name(name).map_err(|_| StreamDamage::Name {
        name: name.to_owned(),
    })
}

/// Reads all fields of a frame's content.
fn fields<T>(
    offset: u64,
    content: &[u8],
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<T, ImportError> {
    let mut reader = Reader::new(content);
    let decoded = read(&mut reader).and_then(|fields| reader.finish().map(|()| fields));
    decoded.map_err(|error| damaged_at(offset, error))
}

fn limited(offset: u64, what: &'static str, found: u64, limit: u64) -> Result<(), ImportError> {
    if found > limit {
        return Err(damaged_at(
            offset,
            StreamDamage::Limit { what, found, limit },
        ));
    }
    Ok(())
}

fn check_length(frame: &Frame, what: &'static str, expected: u64) -> Result<(), ImportError> {
    let found = frame.content_len() as u64;
    if found != expected {
        return Err(frame.damaged(StreamDamage::ContentLength {
            what,
            expected,
            found,
        }));
    }
    Ok(())
}
