//! A WebAssembly sandbox runtime whose programs can be stopped anywhere, stored and resumed.
//!
//! An [`Engine`] compiles, a [`Program`] is a module ready to run, an [`Instance`] is one run of it. An instance that is
//! asked to stop, through a [`Handle`] from any thread, is suspended at its next loop or call; its [`Snapshot`] can be
//! stored as an image, and [`Program::resume`] makes an instance of an image, in this process or another one.
//!
//! ```
//! use wsnap::snapshots::Store;
//! use wsnap::wasi::{Grants, SavedState, Wasi, WasiConfig};
//! use wsnap::{Call, Engine, EngineConfig, Outcome, Program, WASI_SECTION};
//!
//! let count = r#"(module (func (export "count") (result i64) (local $n i64)
//!     (loop $again
//!         (local.set $n (i64.add (local.get $n) (i64.const 1)))
//!         (br_if $again (i64.lt_u (local.get $n) (i64.const 30_000_000))))
//!     (local.get $n)))"#;
//! let engine = Engine::new(&EngineConfig::default())?;
//! let program = Program::new(&engine, count.into())?;
//! let call = Call { export: "count".into(), arguments: vec![] };
//! let mut instance = program.start(Wasi::new(WasiConfig::default())?, call)?;
//!
//! let handle = instance.handle();
//! let stopper = std::thread::spawn(move || handle.request_stop());
//! assert!(matches!(instance.run()?, Outcome::Suspended(_)));
//! # stopper.join().unwrap();
//!
//! # let directory = tempfile::tempdir()?;
//! # let directory = directory.path().join("store");
//! let store = Store::open(directory)?;
//! let id = instance.snapshot()?.store(&store)?;
//! drop(instance);
//!
//! let image = std::sync::Arc::new(store.load(id)?);
//! let host = SavedState::decode(&image.manifest().host[WASI_SECTION])?;
//! let mut resumed = program.resume(&image, Wasi::restore(&host, Grants::default())?)?;
//! let Outcome::Returned(results) = resumed.run()? else { panic!("nobody stops it again") };
//! assert_eq!(results, [wsnap::snapshots::Value::I64(30_000_000)]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod alignment;
mod cache;
mod capture;
mod compile;
mod control;
mod creator;
mod dirty;
mod engine;
mod error;
mod flat;
mod frame_checks;
mod frames;
mod guest;
mod guest_api;
mod guest_state;
mod host;
mod image_volumes;
mod instance;
mod instantiate;
mod layouts;
mod limits;
mod link;
mod memory;
mod module_bytes;
pub mod names;
mod native_stacks;
mod pages;
mod prepared;
mod program;
mod ranges;
mod restore;
mod snapshot;
mod stack;
mod twin;
mod values;
mod volumes;
mod working_set;

pub use capture::{OWN_SECTION, WASI_SECTION};
pub use control::{Handle, Moment};
pub use engine::{Engine, EngineConfig};
pub use error::{Error, Result};
pub use guest_state::{DecodeOwnError, SavedOwn};
pub use host::StopReason;
pub use image_volumes::ImageVolumes;
pub use instance::{Call, Instance, Outcome, Trap};
pub use limits::{LimitReached, Limits};
pub use module_bytes::ModuleBytes;
pub use prepared::PreparedImage;
pub use program::Program;
pub use snapshot::{Snapshot, Stored};
pub use working_set::WorkingSet;
pub use wsnap_instrument::{Options, ValueClass};
pub use wsnap_snapshots as snapshots;
pub use wsnap_wasi as wasi;
