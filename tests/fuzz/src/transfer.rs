//! Exports from strangers: frames of a true one, changed, left out, repeated and swapped, behind a checksum that fits.

use crate::files::true_store;
use crate::input::{Input, disturb, disturb_bytes};
use crate::measure;
use crate::scratch::scratch;
use std::sync::OnceLock;
use wsnap_snapshots::{ExportOptions, ImportOptions, NewRecord, Store};

/// The most that an import accepts.
const CONTENT_BYTES_MAX: u64 = 64 << 20;
/// What an import takes: frames that are decompressed and checked on all cores, and what images take that are published.
const BYTES_ALWAYS: usize = 64 << 20;
const BYTES_PER_BYTE: usize = 50;

/// What precedes the frames, and a frame's content.
const START: usize = 12;
const HEAD: usize = 10;
const CHECKSUM: usize = 32;

/// A frame, not compressed.
#[derive(Clone)]
struct Frame {
    kind: u8,
    coding: u8,
    /// What it says its content and stored length are, unless that is what they are.
    lengths: Option<(u32, u32)>,
    content: Vec<u8>,
}

fn true_stream() -> &'static [u8] {
    static STREAM: OnceLock<Vec<u8>> = OnceLock::new();
    STREAM.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (store, image) = true_store(&directory.path().join("store"));
        for entry in store.images().expect("it is readable") {
            let mut record = NewRecord::new(entry.id, 1, "test");
            record.name = Some("job".into());
            store.put_record(record).expect("there is room");
        }
        let options = ExportOptions {
            ancestors: true,
            names: [("job".into(), image)].into(),
            ..ExportOptions::default()
        };
        let mut stream = Vec::new();
        store
            .export(&[image], &options, &mut stream, |_| ())
            .expect("it is intact");
        stream
    })
}

fn true_frames() -> &'static [Frame] {
    static FRAMES: OnceLock<Vec<Frame>> = OnceLock::new();
    FRAMES.get_or_init(|| {
        let stream = true_stream();
        let mut rest = &stream[START..stream.len() - CHECKSUM];
        let mut frames = Vec::new();
        while let Some((head, stored)) = rest.split_first_chunk::<HEAD>() {
            let length = |at: usize| {
                u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize
            };
            let (stored, behind) = stored.split_at(length(6));
            let content = match head[1] {
                0 => stored.to_vec(),
                _ => zstd::bulk::decompress(stored, length(2)).expect("it is intact"),
            };
            frames.push(Frame {
                kind: head[0],
                coding: 0,
                lengths: None,
                content,
            });
            rest = behind;
        }
        frames
    })
}

fn encode(frames: &[Frame]) -> Vec<u8> {
    let mut stream = true_stream()[..START].to_vec();
    for frame in frames {
        let length = frame.content.len() as u32;
        let (content, stored) = frame.lengths.unwrap_or((length, length));
        stream.extend([frame.kind, frame.coding]);
        stream.extend(content.to_le_bytes());
        stream.extend(stored.to_le_bytes());
        stream.extend_from_slice(&frame.content);
    }
    let checksum = blake3::hash(&stream);
    stream.extend_from_slice(checksum.as_bytes());
    stream
}

fn disturb_frame(input: &mut Input<'_>, frame: &mut Frame) {
    match input.byte() % 6 {
        0 => frame.kind = input.byte() % 10,
        1 => {
            // Compressed content that says to be as long as it likes.
            let stored = zstd::bulk::compress(&frame.content, 1).expect("there is memory");
            let length = input.anything(frame.content.len() as u64) as u32;
            (frame.coding, frame.lengths) = (1, Some((length, stored.len() as u32)));
            frame.content = stored;
        }
        2 => {
            let length = frame.content.len() as u64;
            frame.lengths = Some((input.anything(length) as u32, input.anything(length) as u32));
        }
        _ => disturb_bytes(input, &mut frame.content),
    }
}

/// Imports a stream made as `bytes` say.
///
/// # Panics
///
/// If something does not hold.
pub fn check(bytes: &[u8]) {
    let frames = true_frames();
    let mut turn = measure::turn();
    let mut input = Input::new(bytes);
    let stream = match input.byte() % 4 {
        0 => input.rest().to_vec(),
        1 => {
            let mut stream = true_stream().to_vec();
            disturb_bytes(&mut input, &mut stream);
            stream
        }
        _ => {
            let mut frames = frames.to_vec();
            for _ in 0..=input.byte() % 3 {
                let at = input.index(frames.len());
                match frames.get_mut(at) {
                    Some(frame) if !input.once_in(3) => disturb_frame(&mut input, frame),
                    _ => disturb(&mut input, &mut frames),
                }
            }
            encode(&frames)
        }
    };
    let directory = scratch();
    let store = Store::open(directory.path().join("store")).expect("a store can be made");
    turn.restart();
    let options = ImportOptions {
        content_bytes_max: CONTENT_BYTES_MAX,
    };
    if let Ok(imported) = store.import(&stream[..], &options, |_| ()) {
        for id in imported.images.iter().chain(&imported.new_images) {
            let image = store.load(*id).expect("it has been imported");
            image.verify().expect("it was checked");
        }
    }
    turn.took_at_most(BYTES_ALWAYS + stream.len() * BYTES_PER_BYTE);
}
