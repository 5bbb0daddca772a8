//! A stream that is not exactly what an export writes is refused, at the place where it is wrong, and changes nothing.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{MODULE, empty_store, files_in, manifest_with};
use wsnap_snapshots::{
    Damage, DecodeError, ExportOptions, ImageId, ImportError, ImportOptions, LeafHash, Manifest,
    MemoryHash, MemoryTree, ModuleHash, NewRecord, RecordId, Store, StreamDamage,
};

const MODULE_KIND: u8 = 1;
const MEMORY: u8 = 2;
const LEAVES: u8 = 3;
const IMAGE: u8 = 4;
const RECORD: u8 = 5;
const NAME: u8 = 6;
const END: u8 = 7;
const DATA: u8 = 8;
/// The head of a frame.
const HEAD: u64 = 10;
/// The start of a stream.
const START: u64 = 12;
/// A module of 8 bytes: its announcement and its data.
const MODULE_LEN: u64 = HEAD + 40 + HEAD + 8;

/// All files and folders of a store with their content and the time of their last change.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut contents = BTreeMap::new();
    for path in files_in(folder) {
        if path.is_dir() {
            contents.extend(self::contents(&path));
            contents.insert(path, None);
        } else {
            let bytes = fs::read(&path).unwrap();
            contents.insert(path, Some(bytes));
        }
    }
    contents
}

/// A store that refuses a stream must be as it was.
fn refused_with(stream: &[u8], options: &ImportOptions) -> ImportError {
    let (_folder, store) = empty_store();
    refused_by(&store, stream, options)
}

fn refused_by(store: &Store, stream: &[u8], options: &ImportOptions) -> ImportError {
    let before = contents(store.directory());
    let error = match store.import(stream, options, |_| ()) {
        Err(error) => error,
        Ok(imported) => panic!("{imported:?}"),
    };
    assert!(contents(store.directory()) == before, "{error}");
    error
}

fn refused(stream: &[u8]) -> (u64, StreamDamage) {
    match refused_with(stream, &ImportOptions::default()) {
        ImportError::Damaged { offset, damage } => (offset, damage),
        error => panic!("{error:?}"),
    }
}

/// A small export with every kind of frame.
fn victim() -> Vec<u8> {
    let (_folder, store) = empty_store();
    let module = store.put_module(MODULE).unwrap();
    let mut memory = vec![0; 70_000];
    memory[..5].copy_from_slice(b"wsnap");
    memory[69_999] = 1;
    let first = store
        .publish(manifest_with(module, &[&memory]), &[&memory])
        .unwrap();
    memory[0] = b'W';
    let second = store
        .publish(manifest_with(module, &[&memory]), &[&memory])
        .unwrap();
    let parent = store.put_record(NewRecord::new(first, 1, "snap")).unwrap();
    let mut child = NewRecord::new(second, 2, "snap");
    child.parent = Some(parent.id);
    store.put_record(child).unwrap();
    let options = ExportOptions {
        ancestors: true,
        names: BTreeMap::from([("job".to_owned(), second)]),
        ..ExportOptions::default()
    };
    let mut stream = Vec::new();
    store
        .export(&[second], &options, &mut stream, |_| ())
        .unwrap();
    stream
}

#[test]
fn every_flipped_bit_of_an_export_is_refused_and_changes_nothing() {
    let stream = victim();
    let (_folder, store) = empty_store();
    let mut changed = stream.clone();
    for at in 0..stream.len() {
        for bit in [1 << (at % 8), 0xff] {
            changed[at] ^= bit;
            match refused_by(&store, &changed, &ImportOptions::default()) {
                // An error never lies behind the damage, but for the hash at the end, which nothing escapes.
                ImportError::Damaged {
                    damage: StreamDamage::Checksum,
                    offset,
                } => assert_eq!(offset, stream.len() as u64 - 32),
                ImportError::Damaged { offset, .. } => {
                    assert!(offset <= stream.len() as u64, "byte {at}: {offset}");
                }
                error => panic!("byte {at}: {error:?}"),
            }
            changed[at] ^= bit;
        }
    }
    store
        .import(&changed[..], &ImportOptions::default(), |_| ())
        .unwrap();
}

#[test]
fn every_truncation_of_an_export_is_refused_and_changes_nothing() {
    let stream = victim();
    let (_folder, store) = empty_store();
    for len in 0..stream.len() {
        match refused_by(&store, &stream[..len], &ImportOptions::default()) {
            ImportError::Damaged {
                offset,
                damage: StreamDamage::Truncated { .. },
            } => assert!(offset <= len as u64, "{len} bytes: {offset}"),
            error => panic!("{len} bytes: {error:?}"),
        }
    }
}

#[test]
fn bytes_behind_the_end_are_refused() {
    let mut stream = victim();
    let end = stream.len() as u64;
    stream.push(0);
    assert_eq!(refused(&stream), (end, StreamDamage::TrailingBytes));
    let twice = stream[..end as usize].repeat(2);
    assert_eq!(refused(&twice), (end, StreamDamage::TrailingBytes));
}

#[test]
fn frames_in_another_order_are_refused() {
    let stream = victim();
    let mut frames = Vec::new();
    let mut rest = &stream[START as usize..stream.len() - 32];
    while !rest.is_empty() {
        let len = HEAD as usize + u32::from_le_bytes(rest[6..10].try_into().unwrap()) as usize;
        frames.push(&rest[..len]);
        rest = &rest[len..];
    }
    assert!(frames.len() > 12);
    for first in 0..frames.len() {
        for second in first + 1..frames.len() {
            let mut changed = frames.clone();
            changed.swap(first, second);
            let mut forged = stream[..START as usize].to_vec();
            changed.iter().for_each(|frame| forged.extend(*frame));
            forged.extend(blake3::hash(&forged).as_bytes());
            let (offset, damage) = refused(&forged);
            assert!(offset >= START, "{first} and {second}: {damage}");
            // With the last frame in the place of another the stream can end there: what follows is no hash.
            let ends_early = second == frames.len() - 1;
            assert!(
                ends_early || damage != StreamDamage::Checksum,
                "{first} and {second}: {damage}"
            );
        }
    }
}

#[test]
fn frames_left_out_or_repeated_are_refused() {
    let stream = victim();
    let mut at = START as usize;
    let end = stream.len() - 32;
    while at < end {
        let len = HEAD as usize
            + u32::from_le_bytes(stream[at + 6..at + 10].try_into().unwrap()) as usize;
        let (kind, frame) = (stream[at], at..at + len);
        let mut without = stream[..end].to_vec();
        without.drain(frame.clone());
        without.extend(blake3::hash(&without).as_bytes());
        let mut twice = stream[..end].to_vec();
        twice.splice(at..at, stream[frame].to_vec());
        twice.extend(blake3::hash(&twice).as_bytes());
        // Records and names can be left out: that is another valid export.
        if ![RECORD, NAME].contains(&kind) {
            assert!(refused(&without).1 != StreamDamage::Checksum);
        }
        // What follows the last frame is taken for the hash.
        assert_eq!(refused(&twice).1 == StreamDamage::Checksum, kind == END);
        at += len;
    }
}

/// Writes any stream, as a malicious sender would.
struct Forger {
    bytes: Vec<u8>,
}

impl Forger {
    fn new() -> Self {
        Self {
            bytes: b"WSNAPEXP\x01\0\0\0".to_vec(),
        }
    }

    /// With the module that all manifests here name.
    fn with_module() -> Self {
        let mut forger = Self::new();
        forger.module(MODULE);
        assert_eq!(forger.at(), START + MODULE_LEN);
        forger
    }

    fn at(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn coded(&mut self, kind: u8, coding: u8, decoded: u32, stored: u32, bytes: &[u8]) {
        self.bytes.extend([kind, coding]);
        self.bytes.extend(decoded.to_le_bytes());
        self.bytes.extend(stored.to_le_bytes());
        self.bytes.extend(bytes);
    }

    fn frame(&mut self, kind: u8, content: &[u8]) -> u64 {
        let at = self.at();
        let len = content.len() as u32;
        self.coded(kind, 0, len, len, content);
        at
    }

    fn module(&mut self, bytes: &[u8]) -> u64 {
        let hash = ModuleHash::of(bytes);
        let at = self.announce_module(hash, bytes.len() as u64);
        self.frame(DATA, bytes);
        at
    }

    fn announce_module(&mut self, hash: ModuleHash, byte_len: u64) -> u64 {
        let mut head = hash.0.to_vec();
        head.extend(byte_len.to_le_bytes());
        self.frame(MODULE_KIND, &head)
    }

    fn memory(&mut self, hash: MemoryHash, byte_len: u64, base: MemoryHash, leaves: u64) -> u64 {
        let mut head = hash.0.to_vec();
        head.extend(byte_len.to_le_bytes());
        head.extend(base.0);
        head.extend(leaves.to_le_bytes());
        self.frame(MEMORY, &head)
    }

    fn leaves(&mut self, leaves: &[Leaf]) -> u64 {
        self.frame(LEAVES, &leaves_content(leaves))
    }

    fn image(&mut self, manifest: &Manifest) -> u64 {
        let bytes = manifest.encode();
        let at = self.announce_image(ImageId::of(&bytes), 1, bytes.len() as u64);
        self.frame(DATA, &bytes);
        at
    }

    fn announce_image(&mut self, id: ImageId, requested: u8, byte_len: u64) -> u64 {
        let mut head = id.0.to_vec();
        head.push(requested);
        head.extend(byte_len.to_le_bytes());
        self.frame(IMAGE, &head)
    }

    fn name(&mut self, name: &str, id: ImageId) -> u64 {
        let mut content = (name.len() as u64).to_le_bytes().to_vec();
        content.extend(name.as_bytes());
        content.extend(id.0);
        self.frame(NAME, &content)
    }

    fn finish(mut self) -> Vec<u8> {
        self.frame(END, &[]);
        self.bytes.extend(blake3::hash(&self.bytes).as_bytes());
        self.bytes
    }

    fn refused(self) -> (u64, StreamDamage) {
        refused(&self.finish())
    }
}

struct Leaf {
    index: u32,
    mask: u16,
    hash: LeafHash,
    pages: Vec<u8>,
}

impl Leaf {
    /// With one page, its first, of one byte repeated.
    fn new(index: u32, byte: u8) -> Self {
        Self {
            index,
            mask: 1,
            hash: LeafHash::of(&[byte; 4096]),
            pages: vec![byte; 4096],
        }
    }

    fn entry(&self) -> (u32, LeafHash) {
        (self.index, self.hash)
    }
}

fn leaves_content(leaves: &[Leaf]) -> Vec<u8> {
    let mut content = Vec::new();
    for leaf in leaves {
        content.extend(leaf.index.to_le_bytes());
        content.extend(leaf.mask.to_le_bytes());
        content.extend(leaf.hash.0);
    }
    leaves.iter().for_each(|leaf| content.extend(&leaf.pages));
    content
}

fn root(byte_len: u64, leaves: &[Leaf]) -> MemoryHash {
    MemoryTree::from_leaves(byte_len, leaves.iter().map(Leaf::entry)).root()
}

/// The manifest of a program with memories of these lengths and contents.
fn manifest_of(memories: &[(u64, MemoryHash)]) -> Manifest {
    let mut manifest = manifest_with(ModuleHash::of(MODULE), &[]);
    for (byte_len, content) in memories {
        let mut state = wsnap_snapshots::MemoryState::draft(*byte_len, 0);
        state.content = *content;
        manifest.memories.push(state);
    }
    manifest
}

const NONE: MemoryHash = MemoryHash([0; 32]);

#[test]
fn a_stream_that_follows_all_rules_is_taken() {
    // Shows that the forger's streams are refused for what they are meant to be refused for.
    let leaves = [Leaf::new(0, 1), Leaf::new(2, 2)];
    let hash = root(200_000, &leaves);
    let mut forger = Forger::with_module();
    forger.memory(hash, 200_000, NONE, 2);
    forger.leaves(&leaves);
    let manifest = manifest_of(&[(200_000, hash)]);
    forger.image(&manifest);
    let changed = [Leaf::new(1, 3)];
    let second =
        MemoryTree::from_leaves(200_000, leaves.iter().chain(&changed).map(Leaf::entry)).root();
    forger.memory(second, 200_000, hash, 1);
    forger.leaves(&changed);
    let id = manifest_of(&[(200_000, second), (200_000, hash)]).id();
    forger.image(&manifest_of(&[(200_000, second), (200_000, hash)]));
    forger.name("job", id);
    let (_folder, store) = empty_store();
    let stream = forger.finish();
    let imported = store
        .import(&stream[..], &ImportOptions::default(), |_| ())
        .unwrap();
    assert_eq!(imported.new_images, [manifest.id(), id]);
    store.load(id).unwrap().verify().unwrap();
}

#[test]
fn other_formats_and_versions_are_refused() {
    assert_eq!(refused(b"\0asm\x01\0\0\0"), (0, StreamDamage::NotAnExport));
    let mut stream = victim();
    stream[8] = 2;
    let damage = StreamDamage::Version {
        found: 2,
        supported: 1,
    };
    assert_eq!(refused(&stream), (8, damage));
}

#[test]
fn frames_of_absurd_kinds_codings_and_lengths_are_refused_without_allocating() {
    let kind = |found| StreamDamage::Kind {
        found,
        expected: "a known kind",
    };
    for found in [0, 9, 255] {
        let mut forger = Forger::new();
        forger.frame(found, &[]);
        assert_eq!(forger.refused(), (START, kind(found)));
    }
    let mut forger = Forger::new();
    forger.coded(END, 2, 0, 0, &[]);
    assert_eq!(forger.refused(), (START, StreamDamage::Coding { found: 2 }));
    let limit = 32 * (65_536 + 38);
    for (coding, decoded, stored) in [
        (0, 0, 1),
        (0, 1, 0),
        (0, u32::MAX, u32::MAX),
        (0, limit + 1, limit + 1),
        (1, 0, 0),
        (1, 10, 10),
        (1, 10, 11),
        (1, u32::MAX, 10),
        (1, limit + 1, 10),
    ] {
        let mut forger = Forger::new();
        forger.coded(MODULE_KIND, coding, decoded, stored, &[0; 11]);
        let damage = StreamDamage::FrameLength {
            decoded: decoded.into(),
            stored: stored.into(),
        };
        assert_eq!(forger.refused(), (START, damage));
    }
    let mut forger = Forger::new();
    forger.coded(DATA, 0, limit, limit, &[]);
    let what = "content of a frame";
    let end = START + HEAD;
    assert_eq!(
        refused(&forger.bytes),
        (end, StreamDamage::Truncated { what })
    );
}

#[test]
fn bombs_end_at_the_length_that_they_state() {
    let compressed = zstd::bulk::compress(&vec![0; 1 << 30], 3).unwrap();
    for decoded in [100_000u32, 1 << 21] {
        let mut forger = Forger::new();
        forger.announce_module(ModuleHash([0; 32]), decoded.into());
        let at = forger.at();
        forger.coded(DATA, 1, decoded, compressed.len() as u32, &compressed);
        // Either the stored form is longer than the content, or the content is longer than stated.
        let damage = match compressed.len() as u32 >= decoded {
            true => StreamDamage::FrameLength {
                decoded: decoded.into(),
                stored: compressed.len() as u64,
            },
            false => StreamDamage::Compression,
        };
        assert_eq!(forger.refused(), (at, damage));
    }
    for content in [
        &b"no compressed bytes at all"[..],
        &zstd::bulk::compress(&[1; 50], 3).unwrap(),
    ] {
        let mut forger = Forger::new();
        forger.announce_module(ModuleHash([0; 32]), 51);
        let at = forger.at();
        forger.coded(DATA, 1, 51, content.len() as u32, content);
        assert_eq!(forger.refused(), (at, StreamDamage::Compression));
    }
}

#[test]
fn a_limit_on_the_content_is_kept() {
    let leaves: Vec<Leaf> = (0..100).map(|index| Leaf::new(index, 1)).collect();
    let hash = root(100 << 16, &leaves);
    let mut forger = Forger::with_module();
    forger.memory(hash, 100 << 16, NONE, 100);
    let mut at = 0;
    for leaves in leaves.chunks(32) {
        let content = leaves_content(leaves);
        let stored = zstd::bulk::compress(&content, 3).unwrap();
        at = forger.at();
        forger.coded(
            LEAVES,
            1,
            content.len() as u32,
            stored.len() as u32,
            &stored,
        );
    }
    let options = |content_bytes_max| ImportOptions { content_bytes_max };
    let stream = forger.finish();
    match refused_with(&stream, &options(400_000)) {
        ImportError::TooLarge { offset, limit } => assert_eq!((offset, limit), (at, 400_000)),
        error => panic!("{error:?}"),
    }
    match refused_with(&stream, &options(10)) {
        ImportError::TooLarge { offset, limit } => assert_eq!((offset, limit), (START, 10)),
        error => panic!("{error:?}"),
    }
}

#[test]
fn absurd_lengths_and_counts_are_refused() {
    let limit = |what, found, limit| StreamDamage::Limit { what, found, limit };
    for found in [(1 << 30) + 1, u64::MAX] {
        let mut forger = Forger::new();
        forger.announce_module(ModuleHash([0; 32]), found);
        assert_eq!(forger.refused(), (START, limit("module", found, 1 << 30)));
        let mut forger = Forger::new();
        forger.announce_image(ImageId([0; 32]), 1, found);
        assert_eq!(forger.refused(), (START, limit("manifest", found, 1 << 30)));
    }
    for found in [(1 << 48) + 1, u64::MAX] {
        let mut forger = Forger::new();
        forger.memory(MemoryHash([1; 32]), found, NONE, 0);
        assert_eq!(
            forger.refused(),
            (START, limit("memory size", found, 1 << 48))
        );
    }
    for (byte_len, leaves, most) in [(0, 1, 0), (65_536, 2, 1), (65_537, u64::MAX, 2)] {
        let mut forger = Forger::new();
        forger.memory(MemoryHash([1; 32]), byte_len, NONE, leaves);
        assert_eq!(
            forger.refused(),
            (START, limit("number of leaves", leaves, most))
        );
    }
    // As many as the memory has, but they do not come.
    let mut forger = Forger::new();
    forger.memory(MemoryHash([1; 32]), 1 << 48, NONE, 1 << 32);
    let at = forger.at();
    let damage = StreamDamage::Kind {
        found: END,
        expected: "leaves",
    };
    assert_eq!(forger.refused(), (at, damage));
}

#[test]
fn announcements_of_another_length_are_refused() {
    for kind in [MODULE_KIND, MEMORY, IMAGE, NAME, RECORD] {
        let mut forger = Forger::new();
        forger.frame(kind, &[0; 15]);
        match forger.refused() {
            (START, StreamDamage::Content(DecodeError::Truncated { .. })) => (),
            other => panic!("{kind}: {other:?}"),
        }
    }
    for (kind, len) in [
        (MODULE_KIND, 40),
        (MEMORY, 80),
        (IMAGE, 41),
        (NAME, 40),
        (END, 0),
    ] {
        let mut forger = Forger::new();
        forger.frame(kind, &vec![0; len + 1]);
        let damage = StreamDamage::Content(DecodeError::TrailingBytes { offset: len });
        assert_eq!(forger.refused(), (START, damage), "{kind}");
    }
}

#[test]
fn modules_and_manifests_that_are_not_what_they_are_announced_as_are_refused() {
    let mut forger = Forger::new();
    let expected = ModuleHash([7; 32]);
    forger.announce_module(expected, 8);
    forger.frame(DATA, MODULE);
    let found = ModuleHash::of(MODULE);
    assert_eq!(
        forger.refused(),
        (START, StreamDamage::Module { expected, found })
    );

    let mut forger = Forger::with_module();
    let bytes = manifest_of(&[]).encode();
    let expected = ImageId([7; 32]);
    let at = forger.announce_image(expected, 1, bytes.len() as u64);
    forger.frame(DATA, &bytes);
    let found = ImageId::of(&bytes);
    assert_eq!(
        forger.refused(),
        (at, StreamDamage::Image { expected, found })
    );

    let mut forger = Forger::with_module();
    let at = forger.announce_image(ImageId::of(b"nonsense"), 1, 8);
    forger.frame(DATA, b"nonsense");
    let error = DecodeError::NotThisFormat { format: "image" };
    assert_eq!(forger.refused(), (at, StreamDamage::Content(error)));

    let mut forger = Forger::with_module();
    let at = forger.announce_image(ImageId([0; 32]), 2, 8);
    let error = DecodeError::Discriminant {
        what: "request",
        offset: 32,
        found: 2,
    };
    assert_eq!(forger.refused(), (at, StreamDamage::Content(error)));
}

#[test]
fn data_of_another_length_is_refused() {
    for len in [0, 7, 9] {
        let mut forger = Forger::new();
        forger.announce_module(ModuleHash::of(MODULE), 8);
        let at = forger.frame(DATA, &vec![0; len]);
        let damage = StreamDamage::ContentLength {
            what: "module",
            expected: 8,
            found: len as u64,
        };
        assert_eq!(forger.refused(), (at, damage));
    }
}

/// What is found wrong with a memory of 200,000 bytes that is sent so, and whether in the frame of its leaves.
fn refused_memory(leaves: &[Leaf], base: Option<&[Leaf]>) -> (bool, StreamDamage) {
    let mut forger = Forger::with_module();
    let mut base_hash = NONE;
    if let Some(base) = base {
        base_hash = root(150_000, base);
        forger.memory(base_hash, 150_000, NONE, base.len() as u64);
        forger.leaves(base);
        forger.image(&manifest_of(&[(150_000, base_hash)]));
    }
    let announced = forger.memory(MemoryHash([9; 32]), 200_000, base_hash, leaves.len() as u64);
    let at = forger.leaves(leaves);
    let (offset, damage) = forger.refused();
    assert!([announced, at].contains(&offset), "{damage}");
    (offset == at, damage)
}

#[test]
fn leaves_that_overlap_or_are_out_of_order_are_refused() {
    for leaf in [0, 1, 2] {
        let leaves = [Leaf::new(2, 1), Leaf::new(leaf, 2)];
        let damage = StreamDamage::LeafOrder { leaf, previous: 2 };
        assert_eq!(refused_memory(&leaves, None), (true, damage));
    }
    // In another frame too.
    let mut forger = Forger::with_module();
    forger.memory(MemoryHash([9; 32]), 100 << 16, NONE, 33);
    let leaves: Vec<Leaf> = (0..32).map(|index| Leaf::new(index, 1)).collect();
    forger.leaves(&leaves);
    let at = forger.leaves(&[Leaf::new(31, 2)]);
    let damage = StreamDamage::LeafOrder {
        leaf: 31,
        previous: 31,
    };
    assert_eq!(forger.refused(), (at, damage));
}

#[test]
fn leaves_that_are_not_what_they_are_announced_as_are_refused() {
    let mut wrong = Leaf::new(1, 1);
    wrong.hash = LeafHash([5; 32]);
    let damage = StreamDamage::Leaf {
        leaf: 1,
        expected: wrong.hash,
        found: Leaf::new(1, 1).hash,
    };
    assert_eq!(refused_memory(&[wrong], None), (true, damage));

    let expected = MemoryHash([9; 32]);
    let leaves = [Leaf::new(1, 1)];
    let found = root(200_000, &leaves);
    assert_eq!(
        refused_memory(&leaves, None),
        (false, StreamDamage::Memory { expected, found })
    );
}

#[test]
fn leaves_behind_the_end_of_the_memory_are_refused() {
    for index in [4, u32::MAX] {
        let damage = StreamDamage::LeafOutside {
            leaf: index,
            byte_len: 200_000,
        };
        assert_eq!(refused_memory(&[Leaf::new(index, 1)], None), (true, damage));
    }
    // The memory ends in page 0 of leaf 3.
    let damage = StreamDamage::Padding { leaf: 3 };
    assert_eq!(refused_memory(&[Leaf::new(3, 1)], None), (true, damage));
}

#[test]
fn leaves_with_more_than_the_difference_are_refused() {
    let none = Leaf {
        index: 1,
        mask: 0,
        hash: LeafHash::ZERO,
        pages: Vec::new(),
    };
    let damage = StreamDamage::NotMinimal { leaf: 1 };
    assert_eq!(refused_memory(&[none], None), (true, damage.clone()));
    let zeros = Leaf {
        hash: LeafHash::ZERO,
        ..Leaf::new(1, 0)
    };
    assert_eq!(refused_memory(&[zeros], None), (true, damage.clone()));
    let base = [Leaf::new(1, 1)];
    assert_eq!(
        refused_memory(&[Leaf::new(1, 1)], Some(&base)),
        (true, damage)
    );
}

#[test]
fn leaves_with_too_few_or_too_many_pages_are_refused() {
    for (mask, pages) in [(0, 1), (1, 0), (1, 2), (0xffff, 1), (0x8001, 3)] {
        let leaf = Leaf {
            mask,
            pages: vec![1; pages * 4096],
            ..Leaf::new(0, 1)
        };
        let damage = StreamDamage::ContentLength {
            what: "pages of a frame",
            expected: u64::from(mask.count_ones()) * 4096,
            found: pages as u64 * 4096,
        };
        assert_eq!(refused_memory(&[leaf], None), (true, damage));
    }
    let mut forger = Forger::with_module();
    forger.memory(MemoryHash([9; 32]), 200_000, NONE, 2);
    let at = forger.frame(LEAVES, &[0; 75]);
    let damage = StreamDamage::ContentLength {
        what: "table of leaves",
        expected: 76,
        found: 75,
    };
    assert_eq!(forger.refused(), (at, damage));
}

#[test]
fn bases_that_are_unknown_too_long_or_not_published_before_are_refused() {
    let unknown = StreamDamage::Unknown { what: "base" };
    let mut forger = Forger::with_module();
    let at = forger.memory(MemoryHash([9; 32]), 100, MemoryHash([8; 32]), 0);
    assert_eq!(forger.refused(), (at, unknown.clone()));

    // Sent, but for the same image.
    let zeros = root(1 << 16, &[]);
    let mut forger = Forger::with_module();
    forger.memory(zeros, 1 << 16, NONE, 0);
    let at = forger.memory(MemoryHash([9; 32]), 2 << 16, zeros, 0);
    assert_eq!(forger.refused(), (at, unknown));

    let mut forger = Forger::with_module();
    forger.memory(zeros, 1 << 16, NONE, 0);
    forger.image(&manifest_of(&[(1 << 16, zeros)]));
    let at = forger.memory(MemoryHash([9; 32]), 65_535, zeros, 0);
    let damage = StreamDamage::ShorterThanBase {
        found: 65_535,
        base: 65_536,
    };
    assert_eq!(forger.refused(), (at, damage));
}

#[test]
fn images_whose_parts_were_not_sent_are_refused() {
    let mut forger = Forger::new();
    forger.image(&manifest_of(&[]));
    let damage = StreamDamage::Unknown { what: "module" };
    assert_eq!(forger.refused(), (START, damage));

    let mut forger = Forger::with_module();
    let at = forger.image(&manifest_of(&[(1 << 16, root(1 << 16, &[]))]));
    let damage = StreamDamage::Unknown { what: "memory" };
    assert_eq!(forger.refused(), (at, damage));

    let zeros = root(1 << 16, &[]);
    let mut forger = Forger::with_module();
    forger.memory(zeros, 1 << 16, NONE, 0);
    let at = forger.image(&manifest_of(&[(65_535, zeros)]));
    let damage = StreamDamage::MemoryLength {
        expected: 65_536,
        found: 65_535,
    };
    assert_eq!(forger.refused(), (at, damage));
}

#[test]
fn parts_that_no_image_uses_are_refused() {
    let unused = |what| StreamDamage::Unused { what };
    let forger = Forger::with_module();
    let at = forger.at();
    assert_eq!(forger.refused(), (at, unused("module")));

    let mut forger = Forger::with_module();
    let at = forger.module(b"another");
    assert_eq!(forger.refused(), (at, unused("module")));

    let mut forger = Forger::with_module();
    forger.image(&manifest_of(&[]));
    forger.module(b"another");
    let mut other = manifest_of(&[]);
    other.deterministic = true;
    let at = forger.image(&other);
    assert_eq!(forger.refused(), (at, unused("module")));

    let mut forger = Forger::with_module();
    forger.memory(root(1 << 16, &[]), 1 << 16, NONE, 0);
    let at = forger.image(&manifest_of(&[]));
    assert_eq!(forger.refused(), (at, unused("memory")));

    let mut forger = Forger::with_module();
    forger.image(&manifest_of(&[]));
    forger.memory(root(1 << 16, &[]), 1 << 16, NONE, 0);
    let at = forger.at();
    assert_eq!(forger.refused(), (at, unused("memory")));
}

#[test]
fn what_is_sent_twice_is_refused() {
    let repeated = |what| StreamDamage::Repeated { what };
    let manifest = manifest_of(&[]);
    let mut forger = Forger::with_module();
    forger.image(&manifest);
    let at = forger.image(&manifest);
    assert_eq!(forger.refused(), (at, repeated("image")));

    let mut forger = Forger::with_module();
    forger.image(&manifest);
    let at = forger.module(MODULE);
    assert_eq!(forger.refused(), (at, repeated("module")));

    let mut forger = Forger::with_module();
    forger.memory(root(1 << 16, &[]), 1 << 16, NONE, 0);
    let at = forger.memory(root(1 << 16, &[]), 1 << 16, NONE, 0);
    assert_eq!(forger.refused(), (at, repeated("memory")));

    for second in ["a", "b"] {
        let mut forger = Forger::with_module();
        forger.image(&manifest);
        forger.name("b", manifest.id());
        let at = forger.name(second, manifest.id());
        assert_eq!(forger.refused(), (at, repeated("name")));
    }
}

#[test]
fn names_that_are_none_or_of_unknown_images_are_refused() {
    let manifest = manifest_of(&[]);
    for name in ["", "../../etc/passwd", ".hidden", "two words"] {
        let mut forger = Forger::with_module();
        forger.image(&manifest);
        let at = forger.name(name, manifest.id());
        let damage = StreamDamage::Name {
            name: name.to_owned(),
        };
        assert_eq!(forger.refused(), (at, damage));
    }
    let mut forger = Forger::with_module();
    forger.image(&manifest);
    let at = forger.name("job", ImageId([3; 32]));
    let damage = StreamDamage::Unknown { what: "image" };
    assert_eq!(forger.refused(), (at, damage));
}

/// The id and file of a record of an image.
fn record(image: ImageId, number: u8, parent: Option<u8>, more: &str) -> (RecordId, Vec<u8>) {
    let id = |number: u8| {
        let mut id = RecordId([number; 16]);
        id.0[..8].copy_from_slice(&image.0[..8]);
        id
    };
    let parent = match parent {
        Some(parent) => format!("\"{}\"", id(parent)),
        None => "null".to_owned(),
    };
    let line = format!(
        "{{\"id\":\"{}\",\"image\":\"{image}\",\"parent\":{parent},\"taken_at_ms\":1,\"trigger\":\"snap\",\"added_bytes\":1{more}}}",
        id(number)
    );
    let checksum = blake3::hash(line.as_bytes()).to_hex();
    (id(number), format!("{line}\n{checksum}\n").into_bytes())
}

impl Forger {
    fn record(&mut self, (id, file): &(RecordId, Vec<u8>)) -> u64 {
        let mut content = id.0.to_vec();
        content.extend(file);
        self.frame(RECORD, &content)
    }
}

#[test]
fn records_that_cannot_be_are_refused() {
    let manifest = manifest_of(&[]);
    let id = manifest.id();
    let refused = |records: &[(RecordId, Vec<u8>)]| {
        let mut forger = Forger::with_module();
        forger.image(&manifest);
        let at = records
            .iter()
            .map(|part| forger.record(part))
            .last()
            .unwrap();
        let (offset, damage) = forger.refused();
        assert_eq!(offset, at, "{damage}");
        damage
    };
    let plain = record(id, 1, None, "");
    assert_eq!(
        refused(&[plain.clone(), plain.clone()]),
        StreamDamage::Repeated { what: "record" }
    );
    let mut changed = plain.clone();
    changed.1[20] ^= 1;
    assert_eq!(
        refused(&[changed]),
        StreamDamage::Record(Damage::RecordChecksum)
    );
    let other = record(id, 2, None, "").0;
    assert_eq!(
        refused(&[(other, plain.1.clone())]),
        StreamDamage::Record(Damage::OtherRecord { found: plain.0 })
    );
    assert_eq!(
        refused(&[record(ImageId([1; 32]), 1, None, "")]),
        StreamDamage::Unknown { what: "image" }
    );
    assert_eq!(
        refused(&[record(id, 1, None, ",\"name\":\"../job\"")]),
        StreamDamage::Name {
            name: "../job".to_owned()
        }
    );
    for circle in [&[(1, 1)][..], &[(1, 2), (2, 1)], &[(1, 3), (2, 1), (3, 2)]] {
        let records: Vec<_> = circle
            .iter()
            .map(|(own, parent)| record(id, *own, Some(*parent), ""))
            .collect();
        let last = records.last().unwrap().0;
        assert_eq!(
            refused(&records),
            StreamDamage::ParentBehind { record: last }
        );
    }
    let long = format!(",\"trigger2\":\"{}\"", "x".repeat(1 << 20));
    match refused(&[record(id, 1, None, &long)]) {
        StreamDamage::Limit {
            what: "record",
            limit,
            ..
        } => assert_eq!(limit, 1 << 20),
        damage => panic!("{damage}"),
    }
}

#[test]
fn items_in_the_wrong_place_are_refused() {
    let manifest = manifest_of(&[]);
    let kind = |found, expected| StreamDamage::Kind { found, expected };
    let mut forger = Forger::new();
    forger.frame(DATA, &[]);
    let expected = "a module, memory, image, record, name or the end";
    assert_eq!(forger.refused(), (START, kind(DATA, expected)));
    let mut forger = Forger::new();
    forger.frame(LEAVES, &[]);
    assert_eq!(forger.refused(), (START, kind(LEAVES, expected)));

    let mut forger = Forger::with_module();
    forger.image(&manifest);
    forger.record(&record(manifest.id(), 1, None, ""));
    let at = forger.module(b"another");
    assert_eq!(
        forger.refused(),
        (at, kind(MODULE_KIND, "a record, name or the end"))
    );

    let mut forger = Forger::with_module();
    forger.image(&manifest);
    forger.name("job", manifest.id());
    let at = forger.record(&record(manifest.id(), 1, None, ""));
    assert_eq!(forger.refused(), (at, kind(RECORD, "a name or the end")));

    let mut forger = Forger::new();
    forger.announce_module(ModuleHash::of(MODULE), 8);
    let at = forger.frame(LEAVES, MODULE);
    assert_eq!(forger.refused(), (at, kind(LEAVES, "data")));
}

#[test]
fn an_export_with_the_hash_of_other_bytes_is_refused() {
    let mut stream = Forger::new().finish();
    let len = stream.len();
    stream[len - 1] ^= 1;
    assert_eq!(refused(&stream), (len as u64 - 32, StreamDamage::Checksum));
}
