//! What can go wrong while images are read and written.

use std::io;
use std::path::PathBuf;

use crate::id::{ImageId, LayerId, MemoryHash, RecordId};

/// Bytes are not a valid manifest, page map or index of a layer. Offsets count bytes from the start of the decoded input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The first bytes are not those of the expected format.
    #[error("this is not a wsnap {format}: it does not start with the bytes of one")]
    NotThisFormat {
        /// The format that was expected.
        format: &'static str,
    },
    /// The format is right but of another version than this build reads.
    #[error(
        "this {format} has format version {found}, but this build of wsnap reads version {supported}"
    )]
    Version {
        /// The format concerned.
        format: &'static str,
        /// The version that the bytes state.
        found: u32,
        /// The only version that this build reads.
        supported: u32,
    },
    /// The bytes end too early.
    #[error("the bytes end inside the {what} that starts at byte {offset}")]
    Truncated {
        /// The field that is cut off.
        what: &'static str,
        /// Where the field starts.
        offset: usize,
    },
    /// A count states more items than the bytes that follow can hold.
    #[error(
        "byte {offset} announces {found} {what}, but the bytes that follow hold {most} at most"
    )]
    Count {
        /// What is counted.
        what: &'static str,
        /// Where the count stands.
        offset: usize,
        /// The count.
        found: u64,
        /// The most that could follow.
        most: u64,
    },
    /// A byte that selects between alternatives selects none of them.
    #[error("byte {offset} is {found}, which is not a known {what}")]
    Discriminant {
        /// What is selected.
        what: &'static str,
        /// Where the byte stands.
        offset: usize,
        /// The byte.
        found: u8,
    },
    /// Items that must be in strictly ascending order are not.
    #[error("the {what} at byte {offset} is not above the one before it")]
    Unordered {
        /// The items.
        what: &'static str,
        /// Where the offending item starts.
        offset: usize,
    },
    /// A text is not UTF-8.
    #[error("the {what} that starts at byte {offset} is not UTF-8 text")]
    NotText {
        /// The text.
        what: &'static str,
        /// Where the text starts.
        offset: usize,
    },
    /// Equal neighbours in a table are not one run, or a run is empty.
    #[error("the run of table elements at byte {offset} is empty or belongs to the run before it")]
    NotMinimal {
        /// Where the run starts.
        offset: usize,
    },
    /// A quantity is above the limit of the format.
    #[error("byte {offset} states a {what} of {found}, above the limit of {limit}")]
    Limit {
        /// The quantity.
        what: &'static str,
        /// Where it stands.
        offset: usize,
        /// The value found.
        found: u64,
        /// The largest value allowed.
        limit: u64,
    },
    /// An exception reference points at none of the image's exceptions.
    #[error("byte {offset} refers to exception {index}, but the image has {count}")]
    DanglingException {
        /// Where the reference stands.
        offset: usize,
        /// The index it states.
        index: u32,
        /// How many exceptions there are.
        count: usize,
    },
    /// The frame of a host call states a code offset, although an imported function has no code.
    #[error("the frame of a host call at byte {offset} states a code offset other than 0")]
    HostCallOffset {
        /// Where the frame starts.
        offset: usize,
    },
    /// Bytes follow the last field.
    #[error("the content ends at byte {offset}, but more bytes follow")]
    TrailingBytes {
        /// Where the content ends.
        offset: usize,
    },
    /// The checksum at the end does not fit the bytes before it.
    #[error("the checksum at the end does not fit the content")]
    Checksum,
    /// An entry in the index of a layer cannot be right.
    #[error("the entry at byte {offset} {problem}")]
    Extent {
        /// Where the entry starts.
        offset: usize,
        /// What is wrong with it, as the end of a sentence.
        problem: &'static str,
    },
    /// The number of leaf hashes does not fit the entries.
    #[error("the entries touch {expected} leaves, but there are {found} leaf hashes")]
    LeafCount {
        /// How many leaves the entries touch.
        expected: u64,
        /// How many hashes there are.
        found: u64,
    },
}

/// In which way a stored file is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The content does not have the hash that the file is named by.
    #[error("its content has the hash {found}, not the one that it is named by")]
    Hash {
        /// The hash of the content, as hexadecimal digits.
        found: String,
    },
    /// The content cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The leaf hashes of a page map's layers do not lead to the memory that the map is named by.
    #[error("its layers hold memory {found}, not the one that it is named by")]
    Root {
        /// The memory that the leaf hashes lead to.
        found: MemoryHash,
    },
    /// A page map describes a memory of another length than the manifest does.
    #[error("it describes {found} bytes of memory, but the image has {expected}")]
    MemoryLength {
        /// The length in bytes that the manifest states.
        expected: u64,
        /// The length in bytes that the page map states.
        found: u64,
    },
    /// The header of a layer file names another layer.
    #[error("it is layer {found}, not the one that it is named by")]
    OtherLayer {
        /// The layer that the header names.
        found: LayerId,
    },
    /// The file is smaller or larger than it states.
    #[error("it has {found} bytes instead of {expected}")]
    Size {
        /// The size in bytes that is expected.
        expected: u64,
        /// The real size in bytes.
        found: u64,
    },
    /// A layer speaks about more than the memory that it is said to hold a part of.
    #[error("it reaches to byte {end} of a memory of {memory_len} bytes")]
    OutsideMemory {
        /// The end in bytes of the last stretch that the layer speaks about.
        end: u64,
        /// The length of the memory in bytes.
        memory_len: u64,
    },
    /// The layers of a page map are cut up into too many extents.
    #[error("its memory lies in {found} pieces, more than the limit of {limit}")]
    TooManyExtents {
        /// The number of extents.
        found: usize,
        /// The largest number for a memory of this size.
        limit: usize,
    },
    /// The pages of a layer, or of one that it builds on, do not have the content that its index names.
    #[error("the 64 KiB of memory from byte {offset} on do not have the hash in its index")]
    Leaf {
        /// Where in the memory the leaf starts, in bytes.
        offset: u64,
    },
    /// The file is larger than any valid one.
    #[error("it has {found} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The largest size in bytes of such a file.
        limit: u64,
        /// The real size in bytes.
        found: u64,
    },
    /// A record does not end with the checksum of its first line.
    #[error("its last line is not the checksum of its first")]
    RecordChecksum,
    /// A record does not have the fields of one.
    #[error("it is not a record: {problem}")]
    Record {
        /// In which way.
        problem: String,
    },
    /// A record names another one.
    #[error("it is record {found}, not the one that it is named by")]
    OtherRecord {
        /// The record that it names.
        found: RecordId,
    },
    /// A record is of an image that the record's id does not start with.
    #[error("it is about image {found}, whose first 16 digits are not those of the record's id")]
    OtherImage {
        /// The image.
        found: ImageId,
    },
    /// A name or tag does not hold an image id.
    #[error("it does not hold an image id")]
    Reference,
    /// The journal of a program does not end with the checksum of its first line.
    #[error("its last line is not the checksum of what is before it")]
    JournalChecksum,
    /// The journal of a program cannot be understood.
    #[error("it is not a journal: {problem}")]
    Journal {
        /// In which way.
        problem: String,
    },
}

/// An operation on a store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused an operation. `source.kind()` tells a full disk, a missing permission and
    /// the like apart.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer of the operating system.
        source: io::Error,
    },
    /// The directory holds something else than a store.
    #[error("{} is not a wsnap store: it holds other files", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// The store is of another version than this build reads.
    #[error("{} is of another store version ({found:?}); this build of wsnap uses version {supported}", path.display())]
    OtherVersion {
        /// The file that states the version.
        path: PathBuf,
        /// What it states.
        found: String,
        /// The only version that this build uses.
        supported: u32,
    },
    /// No id, tag, name or unique prefix fits.
    #[error("no image, tag or program named {reference:?} in {}", store.display())]
    NotFound {
        /// What was asked for.
        reference: String,
        /// The store's directory.
        store: PathBuf,
    },
    /// Several ids start with the given digits.
    #[error("{reference:?} is ambiguous: {}", join(candidates))]
    Ambiguous {
        /// What was asked for.
        reference: String,
        /// All ids that start so, ascending.
        candidates: Vec<ImageId>,
    },
    /// A name or tag breaks the rules for them.
    #[error("{name:?} cannot be a name or tag: {rule}")]
    InvalidName {
        /// The name.
        name: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A file that the store ought to have is not there.
    #[error("the {what} {} is missing from the store", path.display())]
    Missing {
        /// What kind of file.
        what: &'static str,
        /// Where it ought to be.
        path: PathBuf,
    },
    /// A stored file is damaged.
    #[error("the {what} {} is damaged", path.display())]
    Damaged {
        /// What kind of file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Damage,
    },
    /// A piece of a memory does not have the content that the image names.
    #[error(
        "image {image} is damaged: memory {memory} differs in the 64 KiB from byte {offset} on"
    )]
    DamagedMemory {
        /// The image.
        image: ImageId,
        /// The index of the memory.
        memory: usize,
        /// Where in the memory the damaged leaf starts, in bytes.
        offset: u64,
    },
    /// The bytes of a memory cannot be read while it is written.
    #[error("cannot read the memory to be stored from byte {offset} on")]
    Source {
        /// Where in the memory, in bytes.
        offset: u64,
        /// The answer of whoever holds the memory.
        source: io::Error,
    },
    /// The memories handed over do not fit the manifest.
    #[error("the manifest does not fit the memories handed over: {problem}")]
    MemoryMismatch {
        /// In which way.
        problem: String,
    },
    /// Another process runs the program of this name.
    #[error("a program named {name:?} is already running: {holder}")]
    JobTaken {
        /// The program's name.
        name: String,
        /// What that process says of itself, such as its id.
        holder: String,
    },
    /// An image that is to be removed is in use.
    #[error("a program is running on image {image}: stop it first")]
    InUse {
        /// The image.
        image: ImageId,
    },
    /// An image that is to be removed has tags, or is the latest of a program.
    #[error(
        "image {image} is {}: remove these first, or force it",
        references(tags, names)
    )]
    Referenced {
        /// The image.
        image: ImageId,
        /// The tags that point at it.
        tags: Vec<String>,
        /// The programs whose latest image it is.
        names: Vec<String>,
    },
    /// The manifest breaks a rule of the format, so that nobody could read it back.
    #[error("the state cannot be written as an image")]
    Unencodable(#[source] DecodeError),
    /// Something is larger than the store takes.
    #[error("the {what} has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
}

fn join(ids: &[ImageId]) -> String {
    let texts: Vec<String> = ids.iter().map(ImageId::to_string).collect();
    texts.join(", ")
}

fn references(tags: &[String], names: &[String]) -> String {
    let kinds = [("tagged", tags), ("the latest of", names)];
    let kinds = kinds.iter().filter(|(_, which)| !which.is_empty());
    let texts: Vec<String> = kinds
        .map(|(kind, which)| format!("{kind} {}", which.join(", ")))
        .collect();
    texts.join(" and ")
}
