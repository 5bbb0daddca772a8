//! What can go wrong while images travel.

use std::io;

use crate::error::{Damage, DecodeError, StoreError};
use crate::id::{ImageId, LeafHash, MemoryHash, ModuleHash, RecordId};

/// An export failed. What has been written is no valid stream: it lacks its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The store could not hand out what is to be exported.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The receiver took no more bytes.
    #[error("cannot write the export")]
    Write(#[source] io::Error),
    /// The compression library refused to work.
    #[error("cannot compress the export")]
    Compress(#[source] io::Error),
    /// A name is to be exported for an image that isn't.
    #[error("the name {name:?} belongs to image {image}, which is not among those to be exported")]
    NameOfOtherImage {
        /// The name.
        name: String,
        /// The image that it belongs to.
        image: ImageId,
    },
}

/// An import failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The stream holds something else than a complete and intact export. The store is as it was.
    #[error("the export is damaged at byte {offset}: {damage}")]
    Damaged {
        /// Where the damaged part starts, in bytes from the start of the stream.
        offset: u64,
        /// What is wrong there.
        damage: StreamDamage,
    },
    /// The stream could not be read. The store is as it was.
    #[error("cannot read the export from byte {offset} on")]
    Read {
        /// How many bytes had been read.
        offset: u64,
        /// The answer of the operating system.
        source: io::Error,
    },
    /// The export holds more than the limit that the caller has set. The store is as it was.
    #[error("the export holds more than {limit} bytes, counted up to byte {offset} of the stream")]
    TooLarge {
        /// Where the limit was exceeded, in bytes from the start of the stream.
        offset: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// What was checked when it came is no longer what it was when it was read back from the store's disk.
    #[error("the disk of the store does not give back the {what} that was written to it")]
    Spool {
        /// What has changed.
        what: &'static str,
    },
    /// The store could not take what the stream holds, for instance because the disk is full. No image names what it
    /// has taken nevertheless, or it is complete.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is wrong with a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamDamage {
    /// The first bytes are not those of an export.
    #[error("this is not a wsnap export: it does not start with the bytes of one")]
    NotAnExport,
    /// The export has another version than this build reads.
    #[error(
        "the export has format version {found}, but this build of wsnap reads version {supported}"
    )]
    Version {
        /// The version that the stream states.
        found: u32,
        /// The only version that this build reads.
        supported: u32,
    },
    /// The stream ends too early.
    #[error("the stream ends inside the {what}")]
    Truncated {
        /// What is cut off.
        what: &'static str,
    },
    /// A frame is of a kind that must not follow the one before it, or of none.
    #[error("a frame of kind {found} follows, but {expected} is expected")]
    Kind {
        /// The kind found.
        found: u8,
        /// What may follow here.
        expected: &'static str,
    },
    /// A frame is coded in an unknown way.
    #[error("{found} is not a known coding")]
    Coding {
        /// The byte found.
        found: u8,
    },
    /// A frame states lengths that no frame of its kind and coding has.
    #[error("a frame cannot have {stored} bytes for {decoded} bytes of content")]
    FrameLength {
        /// The stated length of the content in bytes.
        decoded: u64,
        /// The stated length of the coded content in bytes.
        stored: u64,
    },
    /// A frame's content has another length than what stands before it demands.
    #[error("the {what} has {found} bytes instead of {expected}")]
    ContentLength {
        /// What the frame holds.
        what: &'static str,
        /// The length in bytes that is expected.
        expected: u64,
        /// The length in bytes that was found.
        found: u64,
    },
    /// A quantity is above the limit of the format.
    #[error("the {what} is {found}, above the limit of {limit}")]
    Limit {
        /// The quantity.
        what: &'static str,
        /// The value found.
        found: u64,
        /// The largest value allowed.
        limit: u64,
    },
    /// A frame cannot be decompressed to the length that it states.
    #[error("a frame cannot be decompressed to the length that it states")]
    Compression,
    /// The content of a frame cannot be decoded; offsets count from the start of the content.
    #[error("in the content of a frame, {0}")]
    Content(#[from] DecodeError),
    /// Something has been sent before.
    #[error("the {what} has been sent before")]
    Repeated {
        /// What was sent twice.
        what: &'static str,
    },
    /// Something refers to what has not been sent before it.
    #[error("the {what} has not been sent before")]
    Unknown {
        /// What is missing.
        what: &'static str,
    },
    /// Something was sent that the image after it does not use.
    #[error("the image does not use the {what} that was sent for it")]
    Unused {
        /// What is superfluous.
        what: &'static str,
    },
    /// A module has not the hash that it is announced by.
    #[error("the module has the hash {found} instead of {expected}")]
    Module {
        /// The hash announced.
        expected: ModuleHash,
        /// The hash of the bytes.
        found: ModuleHash,
    },
    /// A manifest has not the id that it is announced by.
    #[error("the image has the id {found} instead of {expected}")]
    Image {
        /// The id announced.
        expected: ImageId,
        /// The id of the bytes.
        found: ImageId,
    },
    /// A memory is announced as shorter than the one that it is described by difference to.
    #[error("a memory of {found} bytes is described by its difference to one of {base}")]
    ShorterThanBase {
        /// The length announced in bytes.
        found: u64,
        /// The length of the base in bytes.
        base: u64,
    },
    /// A leaf lies behind the end of its memory.
    #[error("leaf {leaf} lies behind the end of a memory of {byte_len} bytes")]
    LeafOutside {
        /// The index of the leaf.
        leaf: u32,
        /// The memory's length in bytes.
        byte_len: u64,
    },
    /// Leaves are not in strictly ascending order.
    #[error("leaf {leaf} follows leaf {previous}, but leaves ascend")]
    LeafOrder {
        /// The index of the leaf.
        leaf: u32,
        /// The index of the leaf before it.
        previous: u32,
    },
    /// A leaf has not the hash that it is announced by.
    #[error("leaf {leaf} has the hash {found} instead of {expected}")]
    Leaf {
        /// The index of the leaf.
        leaf: u32,
        /// The hash announced.
        expected: LeafHash,
        /// The hash of its bytes.
        found: LeafHash,
    },
    /// A leaf is sent without any page, or a page is sent that is the same in the base.
    #[error("leaf {leaf} is sent with more than what differs from the base")]
    NotMinimal {
        /// The index of the leaf.
        leaf: u32,
    },
    /// Bytes behind the end of a memory are not zero.
    #[error("bytes behind the end of the memory, in leaf {leaf}, are not zero")]
    Padding {
        /// The index of the leaf.
        leaf: u32,
    },
    /// The leaves of a memory do not lead to its name.
    #[error("the leaves are those of memory {found} instead of {expected}")]
    Memory {
        /// The name announced.
        expected: MemoryHash,
        /// The memory that the leaves belong to.
        found: MemoryHash,
    },
    /// A manifest states another length for a memory than the stream does.
    #[error("a memory has {found} bytes in the manifest and was sent with {expected}")]
    MemoryLength {
        /// The length in bytes as sent.
        expected: u64,
        /// The length in bytes that the manifest states.
        found: u64,
    },
    /// A record is not what it should be.
    #[error("a record cannot be read: {0}")]
    Record(Damage),
    /// The parent of a record comes after it.
    #[error("record {record} comes after a record that it is the parent of")]
    ParentBehind {
        /// The parent.
        record: RecordId,
    },
    /// A name breaks the rules for names of programs.
    #[error("{name:?} cannot be the name of a program")]
    Name {
        /// The name.
        name: String,
    },
    /// The stream was changed on its way: the hash at its end is that of other bytes.
    #[error("the hash at the end does not fit the bytes before it")]
    Checksum,
    /// Bytes follow the end of the export.
    #[error("bytes follow the end of the export")]
    TrailingBytes,
}
