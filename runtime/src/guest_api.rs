//! The module `wsnap` that programs can import: what they can know about being resumed, and their own snapshots.
//!
//! | import | |
//! | --- | --- |
//! | `snapshot() -> i32` | takes a snapshot of the program: [`TAKEN`] in the run that goes on, [`RESUMED`] in each run that is resumed from it; [`UNAVAILABLE`] if nobody keeps snapshots, [`FAILED`] if this one could not be taken or kept |
//! | `generation(address: i32) -> i32` | stores 16 bytes, other ones in each run: since each start and each resume; an errno of WASI |
//! | `resume_count() -> i64` | how often the program was resumed since it was started |
//!
//! A deterministic program finds out nothing: its generation follows from its seed alone, and its count is 0. Only what
//! `snapshot` returns tells it, since that is what it asks for.

use crate::error::Error;
use crate::guest_state::SavedOwn;
use crate::host::HostState;
use crate::instance::Instance;
use crate::snapshot::{self, Snapshot};
use wasmtime::{Caller, Linker};
use wsnap_instrument::Module;
use wsnap_wasi::Errno;

/// The name of the module.
const MODULE: &str = "wsnap";
/// The import by which a program asks for a snapshot.
const SNAPSHOT: &str = "snapshot";

/// The snapshot is kept, and this is the run that goes on.
pub(crate) const TAKEN: i32 = 0;
/// This run was resumed from the snapshot.
pub(crate) const RESUMED: i32 = 1;
/// Nobody keeps snapshots of this program.
pub(crate) const UNAVAILABLE: i32 = -1;
/// The snapshot could not be taken, or not be kept.
pub(crate) const FAILED: i32 = -2;

/// Keeps a snapshot that the program has asked for, or learns why there is none; returns whether it is kept.
type Keep = Box<dyn FnMut(Result<Snapshot<'static>, Error>) -> bool + Send>;

/// What a program can ask about itself.
#[derive(Default)]
pub(crate) struct Own {
    /// Drawn when it is first asked for.
    generation: Option<[u8; 16]>,
    resumes: u64,
    call: SnapshotCall,
    keep: Option<Keep>,
}

/// Where the program's call of `snapshot` stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SnapshotCall {
    #[default]
    None,
    /// The state is being captured: who resumes from it is told.
    Capturing,
    /// The call stack was unwound in the call, which is made again and returns this.
    Answered(i32),
}

impl Own {
    /// Whether the program is in a call of `snapshot` that has not been answered.
    pub fn is_capturing(&self) -> bool {
        self.call == SnapshotCall::Capturing
    }

    /// Hands the snapshot over and has the call return, when it is made again, what came of it.
    pub fn answer(&mut self, snapshot: Result<Snapshot<'static>, Error>) {
        self.call = SnapshotCall::Answered(self.hand_over(snapshot));
    }

    fn hand_over(&mut self, snapshot: Result<Snapshot<'static>, Error>) -> i32 {
        match &mut self.keep {
            None => UNAVAILABLE,
            Some(keep) => match keep(snapshot) {
                true => TAKEN,
                false => FAILED,
            },
        }
    }
}

impl HostState {
    /// What of this is part of an image, unless it is the default.
    pub fn saved_own(&self) -> Option<SavedOwn> {
        let call = self.own.call;
        let saved = SavedOwn {
            is_in_snapshot: call == SnapshotCall::Capturing
                || call == SnapshotCall::Answered(RESUMED),
            resumes: self.own.resumes,
        };
        (saved != SavedOwn::default()).then_some(saved)
    }

    /// The program is resumed from an image that says this.
    pub fn restore_own(&mut self, saved: SavedOwn) {
        if !self.wasi.is_deterministic() {
            self.own.resumes = saved.resumes.saturating_add(1);
        }
        if saved.is_in_snapshot {
            self.own.call = SnapshotCall::Answered(RESUMED);
        }
    }
}

impl Instance {
    /// How often the program was resumed since it was started, as it is told.
    pub fn resume_count(&self) -> u64 {
        self.store.data().own.resumes
    }

    /// Tells the program that it was resumed at least so often. An image knows of the resumes that led to it, but not of
    /// those from it that came to nothing. A deterministic program is not told.
    pub fn set_resume_count(&mut self, count: u64) {
        let host = self.store.data_mut();
        if !host.wasi.is_deterministic() {
            host.own.resumes = host.own.resumes.max(count);
        }
    }

    /// Lets the program take snapshots of itself, by its import `wsnap.snapshot`. `keep` gets each one, or why there is none, on
    /// the thread that runs the program, which stands still meanwhile; it returns whether the snapshot is kept, and that is
    /// what the program is told. Without this, it is told that there are no snapshots.
    pub fn keep_own_snapshots(
        &mut self,
        keep: impl FnMut(Result<Snapshot<'static>, Error>) -> bool + Send + 'static,
    ) {
        self.store.data_mut().own.keep = Some(Box::new(keep));
    }
}

/// Whether function `index` is the import by which a program asks for a snapshot.
pub(crate) fn is_snapshot(module: &Module<'_>, index: u32) -> bool {
    let is_function = |ty| {
        matches!(
            ty,
            wasmparser::TypeRef::Func(_) | wasmparser::TypeRef::FuncExact(_)
        )
    };
    let mut functions = module
        .imports()
        .iter()
        .filter(|import| is_function(import.ty));
    functions
        .nth(index as usize)
        .is_some_and(|import| import.module == MODULE && import.name == SNAPSHOT)
}

/// Provides the module.
pub(crate) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    linker
        .func_wrap(MODULE, SNAPSHOT, |mut caller: Caller<'_, HostState>| {
            snapshot(&mut caller)
        })?
        .func_wrap(
            MODULE,
            "generation",
            |mut caller: Caller<'_, HostState>, address: i32| {
                let stored = generation(&mut caller, address as u32);
                stored.err().unwrap_or(Errno::Success).raw()
            },
        )?
        .func_wrap(MODULE, "resume_count", |caller: Caller<'_, HostState>| {
            caller.data().own.resumes
        })?;
    Ok(())
}

fn snapshot(caller: &mut Caller<'_, HostState>) -> i32 {
    let host = caller.data_mut();
    if let SnapshotCall::Answered(answer) = host.own.call {
        host.own.call = SnapshotCall::None;
        return answer;
    }
    let Some(guest) = host.guest.clone().filter(|_| host.own.keep.is_some()) else {
        return UNAVAILABLE;
    };
    host.own.call = SnapshotCall::Capturing;
    match snapshot::of_itself(caller, &guest) {
        Some(snapshot) => {
            let own = &mut caller.data_mut().own;
            own.call = SnapshotCall::None;
            own.hand_over(snapshot)
        }
        None => {
            guest.control.begin_unwinding();
            TAKEN
        }
    }
}

fn generation(caller: &mut Caller<'_, HostState>, address: u32) -> Result<(), Errno> {
    let known = caller.data().memory;
    // In the start function of a program that runs bare nobody has looked the memory up yet.
    let memory = known.or_else(|| caller.get_export("memory")?.into_memory());
    let memory = memory.ok_or(Errno::Fault)?;
    let host = caller.data_mut();
    let generation = match host.own.generation {
        Some(generation) => generation,
        None => {
            let drawn = host.wasi.generation().map_err(|_| Errno::Io)?;
            *host.own.generation.insert(drawn)
        }
    };
    let stored = memory.write(caller, address as usize, &generation);
    stored.map_err(|_| Errno::Fault)
}
