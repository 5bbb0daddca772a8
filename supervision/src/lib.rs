//! Keeps programs running: stores their state at intervals, goes on after crashes from the last image that is good, and
//! never loops on a bad one.
//!
//! ```text
//!             ┌──────────── Job: one name in one store ────────────┐
//!  Supervisor │ next ──► begin ──► the program runs ──► ended/died │ ──► again, after a pause (Backoff), or the end
//!             └───▲─────────────────────┬───────────────────┬──────┘
//!                 │ journal, on disk    │ Autosave          │ rules: which images to reject
//!                 └─────────────────────┴── Keeper ─────────┘
//! ```
//!
//! A [`Job`] belongs to one process at a time. Before the program runs, its journal says from which image; what is
//! found in it later is an attempt that ended with its process. The rules ([`Journal`]) are functions of what the journal
//! says and read no clock; `JOURNAL.md` beside this crate has them and the file's form.
//!
//! An application keeps a program running with a [`Supervisor`] and a [`Host`] of its own, which starts or resumes the
//! program and says how it ended:
//!
//! ```
//! use std::sync::Arc;
//! use wsnap::wasi::{Grants, SavedState, Wasi, WasiConfig};
//! use wsnap::{Call, Engine, EngineConfig, Instance, Outcome, Program, WASI_SECTION};
//! use wsnap_supervision::{
//!     AUTOSAVE_TRIGGER, Attempt, Autosave, End, Host, Job, Keeper, Options, Pace, Saved, Supervisor,
//! };
//! # use wsnap_supervision::snapshots::Store;
//!
//! struct Simulation { program: Program, keeper: Arc<Keeper>, store: Store }
//!
//! impl Host for Simulation {
//!     type Ready = Instance;
//!     type Output = Outcome;
//!     type Error = Box<dyn std::error::Error>;
//!
//!     fn prepare(&mut self, attempt: &Attempt) -> Result<Option<Instance>, Self::Error> {
//!         let mut instance = match &attempt.image {
//!             None => self.program.start(Wasi::new(WasiConfig::default())?, Call::command())?,
//!             Some(image) => {
//!                 let state = SavedState::decode(&image.manifest().host[WASI_SECTION])?;
//!                 self.program.resume(image, Wasi::restore(&state, Grants::default())?)?
//!             }
//!         };
//!         instance.set_resume_count(attempt.resume_count);
//!         self.keeper.begin(attempt.origin)?;
//!         Ok(Some(instance))
//!     }
//!
//!     fn run(&mut self, mut instance: Instance, _: &mut Job) -> Result<End<Outcome>, Self::Error> {
//!         let (store, keeper, handle) = (self.store.clone(), self.keeper.clone(), instance.handle());
//!         let autosave = Autosave::start(Pace::default(), handle.clone(), move || {
//!             let snapshot = handle.snapshot().ok()?;
//!             keeper.keep(&store, &snapshot, AUTOSAVE_TRIGGER, &Default::default()).ok()?;
//!             Some(Saved::now(&snapshot))
//!         })?;
//!         let outcome = instance.run()?;
//!         drop(instance);
//!         autosave.finish();
//!         Ok(End::of(outcome))
//!     }
//! }
//!
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path().join("store");
//! let store = Store::open(folder)?;
//! let engine = Engine::new(&EngineConfig::default())?;
//! let program = Program::new(&engine, r#"(module (func (export "_start")))"#.into())?;
//! let keeper = Arc::new(Keeper::new(Some("simulation".to_owned()), Default::default()));
//! let job = Job::open(&store, "simulation", "process 4711")?;
//! let mut host = Simulation { program, keeper, store };
//! let finish = Supervisor::new(job, Options::default()).run(&mut host)?;
//! assert!(matches!(finish.output, Some(Outcome::Returned(_))));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod autosave;
mod backoff;
mod job;
mod journal;
mod keeper;
mod output_file;
mod run_clock;
mod supervisor;
mod thinning;

pub use autosave::{Autosave, Pace, Saved};
pub use backoff::Backoff;
pub use job::{Attempt, Job};
pub use journal::{
    ATTEMPTS_MIN, Ancestor, DEATHS_MAX, DEFAULT_WINDOW, Death, Journal, Kind, UNKNOWN_DEATHS,
    Verdict,
};
pub use keeper::{AUTOSAVE_TRIGGER, KeepError, Keeper, Kept, Origin};
pub use output_file::OutputFile;
pub use run_clock::RunClock;
pub use supervisor::{End, Finish, Host, Options, Supervisor};
pub use thinning::Thinning;
pub use wsnap::snapshots;
