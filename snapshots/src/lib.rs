//! The wsnap image format and its content-addressed store.
//!
//! An *image* is the state of a stopped WebAssembly program and nothing else. It is written as a
//! [`Manifest`]: one canonical sequence of bytes that names the program's module and the content of its
//! memories by hash and holds everything else itself. The BLAKE3 hash of those bytes is the [`ImageId`],
//! so equal state has an equal id, whatever process, machine or store it comes from.
//!
//! A memory is named by the root of a hash tree over its content ([`MemoryTree`]) that is updated in time
//! proportional to what changed, and whose leaves can be checked one by one.
//!
//! A [`Store`] is a directory that holds images, the modules they belong to and the pages of their
//! memories. What is published in it is durable and never modified; a reader may map the pages of an image
//! straight from its layer files.
//!
//! A [`Record`] says when, why and from what a snapshot was taken; a [`History`] is the tree of them. Names, tags and
//! programs that run on an image keep it; [`Store::gc`] deletes what nobody needs.
//!
//! Every byte of these formats is written down in `FORMAT.md` beside this crate.
//!
//! ```
//! use wsnap_snapshots::{Invocation, Manifest, MemoryState, Phase, Store};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let store = Store::open(folder)?;
//! let module = store.put_module(b"\0asm\x01\0\0\0")?;
//! let mut manifest = Manifest::new(module, Invocation::export("_start"));
//! manifest.memories.push(MemoryState::draft(1, 16));
//!
//! let mut memory = vec![0; 65536];
//! memory[..5].copy_from_slice(b"hello");
//! let id = store.publish(manifest, &[&memory])?;
//! store.set_tag("greeting", id)?;
//!
//! let image = store.load(store.resolve("greeting")?)?;
//! image.verify()?;
//! assert_eq!(image.manifest().invocation.phase, Phase::Export);
//! # Ok(())
//! # }
//! ```

mod bytes;
mod error;
mod history;
mod id;
mod layer_index;
pub mod manifest;
pub mod memory_tree;
mod overlay;
mod page_map;
mod parallel;
mod record;
mod store;
mod transfer;

pub use error::{Damage, DecodeError, StoreError};
pub use history::History;
pub use id::{
    ImageId, LayerId, LeafHash, MemoryHash, ModuleHash, ParseHashError, ParseRecordIdError,
    RecordId,
};
pub use manifest::{
    Elements, Exception, Frame, FrameState, GlobalState, Invocation, Manifest, MemoryState, Phase,
    Run, TableState, Value,
};
pub use memory_tree::MemoryTree;
pub use page_map::{Extent, LAYERS_MAX, PAGE_SIZE, mappings_max};
pub use record::{NewRecord, Record, Rejection};
pub use store::{
    Amount, Freed, GcOptions, GcReport, ImageEntry, Item, JobLock, KeptBecause, Layer,
    MemoryUpdate, PageSource, Published, Removed, Retention, Statistics, Store, StoreLock,
    StoredImage, StoredMemory, StoredModule, Verification, check_name,
};
#[doc(hidden)]
pub use store::{Faults, Operation, OperationKind};
pub use transfer::{
    ExportError, ExportOptions, Exported, ImportError, ImportOptions, Imported, Progress,
    StreamDamage,
};
