//! Running programs.
//!
//! ```text
//!   Program::start ──> ready ──run──> running ──────> ended: returned, exited, trapped
//!                                      │    ^
//!                            suspended v    │ run
//!   Program::resume ────────────────> frames ──snapshot──> image
//! ```
//!
//! While a program is suspended its call stack lies in frames; everything else stays where it is, in the store of the
//! engine and in the mapped memories, so it can go on in place.

use crate::control::{Control, Handle};
use crate::error::{Error, Result};
use crate::frames;
use crate::guest::Guest;
use crate::host::{Exit, FramesFull, HostState, StopReason};
use crate::limits::LimitReached;
use crate::memory::Mapping;
use crate::native_stacks::Lease;
use crate::program::Program;
use crate::stack::SavedStack;
use crate::twin;
use crate::values::{References, plain_val, plain_value};
use std::sync::{Arc, Weak};
use std::time::Instant;
use wasmtime::{Func, Store, Val};
use wsnap_instrument::Name;
use wsnap_instrument::control::{self as layout, CONTROL_BYTES};
use wsnap_snapshots::{Phase, Value};
use wsnap_wasi::Wasi;

/// A call of an exported function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The name of the exported function.
    pub export: String,
    /// Its arguments.
    pub arguments: Vec<Value>,
}

impl Call {
    /// The call that runs a WASI command.
    pub fn command() -> Self {
        Self {
            export: "_start".into(),
            arguments: Vec::new(),
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// The function returned.
    Returned(Vec<Value>),
    /// The program ended itself with this status.
    Exited(u32),
    /// The program trapped, or threw an exception that it did not catch, or reached a limit of which
    /// [`crate::Limits::trap_on_grow_failure`] says that it is a trap.
    Trapped(Trap),
    /// The program stands still and can be stored, or go on.
    Suspended(StopReason),
}

/// Why a program trapped, and where.
#[derive(Debug)]
pub struct Trap(pub(crate) wasmtime::Error);

impl std::fmt::Display for Trap {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The engine's own form begins with the backtrace, and would add one of the host where that is switched on.
        let mut chain: Vec<String> = self.0.chain().map(|cause| cause.to_string()).collect();
        let backtrace = self
            .0
            .is::<wasmtime::WasmBacktrace>()
            .then(|| chain.remove(0));
        write!(formatter, "{}", chain.join(": "))?;
        if let Some(backtrace) = backtrace {
            let frames = backtrace
                .trim_start_matches("error while executing at ")
                .trim_end();
            write!(formatter, "\n{frames}")?;
        }
        Ok(())
    }
}

/// Where a program is in its life.
pub(crate) enum State {
    /// The phase begins with the next run.
    Ready,
    /// Its call stack lies in the control memory as it was unwound.
    Unwound,
    /// Its call stack, outermost frame first; at least one.
    Suspended(Arc<SavedStack>),
    Ended,
}

/// A program that runs, is suspended, or has ended.
pub struct Instance {
    pub(crate) program: Program,
    pub(crate) store: Store<HostState>,
    pub(crate) instance: wasmtime::Instance,
    pub(crate) state: State,
    pub(crate) call: Call,
    pub(crate) control: Option<Arc<Control>>,
    pub(crate) guest: Option<Arc<Guest>>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.end();
    }
}

impl Instance {
    pub(crate) fn function(&mut self, name: &str) -> Result<Func> {
        let missing = || Error::NoExport {
            export: name.to_owned(),
        };
        self.instance
            .get_func(&mut self.store, name)
            .ok_or_else(missing)
    }

    /// Asks the program to stop, from any thread.
    pub fn handle(&self) -> Handle {
        Handle {
            control: self.control.clone(),
            guest: self.guest.as_ref().map_or_else(Weak::new, Arc::downgrade),
        }
    }

    /// The program's memories by index, and the content of its volumes behind them; empty for a program that runs bare.
    pub(crate) fn memories(&self) -> &[Arc<Mapping>] {
        let guest = self.guest.as_ref();
        guest.map_or(&[], |guest| guest.pages.memories())
    }

    /// Tells whoever waits for a snapshot that there will be none.
    fn end(&mut self) {
        if let Some(guest) = &self.guest {
            guest.desk.close();
        }
    }

    /// Makes the program stop at the `count`-th safepoint from now (the first, if `count` is zero). A program that runs
    /// bare has none.
    ///
    /// # Errors
    ///
    /// [`Error::NotCountable`] when it is not the first, and the engine does not make safepoints countable (see
    /// [`EngineConfig::rewriting`](crate::EngineConfig::rewriting)).
    pub fn stop_at_safepoint(&mut self, count: u64) -> Result<()> {
        let Some(control) = &self.control else {
            return Ok(());
        };
        let rewriting = self.program.engine().config().rewriting;
        if rewriting.countable_safepoints {
            control.count_safepoints(count.max(1));
        } else if count <= 1 {
            control.stop_at_next_safepoint();
        } else {
            return Err(Error::NotCountable { count });
        }
        Ok(())
    }

    /// The program's host state.
    pub fn wasi(&mut self) -> &mut Wasi {
        &mut self.store.data_mut().wasi
    }

    /// The bytes of memory `index`.
    pub fn memory(&mut self, index: u32) -> Option<&[u8]> {
        if self.control.is_none() {
            let memory = self.store.data().memory.filter(|_| index == 0)?;
            return Some(memory.data(&self.store));
        }
        let index = index as usize;
        let is_its_own = index < self.program.parsed().ok()?.memories().len();
        let mapping = self.memories().get(index).filter(|_| is_its_own)?;
        mapping.view(0..mapping.size(), &self.store)
    }

    /// The program that this is an instance of.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Runs the program, or lets it go on, until it ends or is suspended.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] when it has ended, [`Error::Image`] when it cannot go on from its frames, and
    /// [`Error::FramesFull`] when its call stack is too large to be suspended, which ends it.
    pub fn run(&mut self) -> Result<Outcome> {
        let outcome = loop {
            // Without an outcome it was suspended for a snapshot alone, which has been handed over.
            if let Some(outcome) = self.run_once().transpose() {
                break outcome;
            }
        };
        if matches!(self.state, State::Ended) {
            self.end();
        }
        outcome
    }

    fn run_once(&mut self) -> Result<Option<Outcome>> {
        self.read_frames()?;
        // Before anything changes: without a stack the program stays as it is.
        let engine = self.program.engine().clone();
        let mut native = engine.stack()?;
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Ended | State::Unwound => Err(Error::Ended),
            State::Ready => self.run_phase(&mut native),
            State::Suspended(stack) => match self.restore_frames(&stack) {
                Ok(outermost) => self.enter(&mut native, outermost, &[]),
                Err(error) => {
                    self.state = State::Suspended(stack);
                    Err(error)
                }
            },
        }
    }

    fn run_phase(&mut self, stack: &mut Lease<'_>) -> Result<Option<Outcome>> {
        if self.store.data().phase == Phase::Start {
            let name = Name::Start.in_module(self.program.clone().parsed()?);
            let start = self.function(&name)?;
            return self.enter(stack, start, &[]);
        }
        let export = self.call.export.clone();
        let function = self.function(&export)?;
        // References to functions or exceptions are no arguments that a host could have given.
        let arguments: Option<Vec<Val>> = self
            .call
            .arguments
            .iter()
            .map(|value| plain_val(*value))
            .collect();
        let arguments = arguments.ok_or(Error::Arguments { export })?;
        self.enter(stack, function, &arguments)
    }

    /// Enters guest code by `function`, on `stack`, and sees how it comes back.
    fn enter(
        &mut self,
        stack: &mut Lease<'_>,
        function: Func,
        arguments: &[Val],
    ) -> Result<Option<Outcome>> {
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
        let store = &mut self.store;
        let returned = stack.run(|| {
            let returned = function.call(store, arguments, &mut results);
            if twin::is_twin() {
                // Its call stack is unwound, and nothing else is to be done in a twin.
                twin::stand_still(returned.is_ok());
            }
            returned
        });
        if let Err(error) = returned {
            return self.failed(error).map(Some);
        }
        if self.has_stored_frames()? {
            return self.suspended();
        }
        if self.store.data().phase == Phase::Start {
            self.store.data_mut().phase = Phase::Export;
            return self.run_phase(stack);
        }
        Ok(Some(Outcome::Returned(self.results_as_values(results)?)))
    }

    fn results_as_values(&mut self, results: Vec<Val>) -> Result<Vec<Value>> {
        let program = self.program.clone();
        let simple = |value: &Val| match value {
            Val::ExternRef(_) => Some(Value::ExternRefNull),
            value => plain_value(value),
        };
        if let Some(values) = results.iter().map(simple).collect() {
            return Ok(values);
        }
        let module = program.parsed()?;
        let mut references =
            References::new(&mut self.store, self.instance, module, program.facts()?)?;
        results
            .into_iter()
            .map(|value| references.describe(&mut self.store, value))
            .collect()
    }

    /// Whether the guest has begun to unwind: whoever asks for it only makes it do so at its next safepoint.
    fn has_stored_frames(&self) -> Result<bool> {
        let Some(control) = &self.control else {
            return Ok(false);
        };
        let start = self.program.parsed()?.control_layout().frames();
        Ok(control.get(layout::SAVE_POINTER) != start)
    }

    fn failed(&mut self, error: wasmtime::Error) -> Result<Outcome> {
        if let Some(Exit(status)) = error.downcast_ref() {
            return Ok(Outcome::Exited(*status));
        }
        // Of the code that runs between the first frame stored and the last, only what stores frames can trap.
        let stores_frames = error.is::<wasmtime::Trap>() && self.has_stored_frames()?;
        if error.is::<FramesFull>() || stores_frames {
            return Err(Error::FramesFull {
                bytes: CONTROL_BYTES.into(),
            });
        }
        let guests = error.is::<wasmtime::Trap>()
            || error.is::<wasmtime::ThrownException>()
            || error.is::<LimitReached>();
        if guests {
            Ok(Outcome::Trapped(Trap(error)))
        } else {
            Err(Error::Internal(error))
        }
    }

    /// The call stack is unwound.
    fn suspended(&mut self) -> Result<Option<Outcome>> {
        let since = Instant::now();
        let Some(control) = self.control.clone() else {
            return Err(Error::Bare);
        };
        control.end_unwinding();
        self.state = State::Unwound;
        let stops_next = control.take_stop_at_next();
        let of_its_own = self.store.data_mut().stop.take();
        let reason = of_its_own
            .or(stops_next.then_some(StopReason::Safepoint))
            .or(control.is_stop_wanted().then_some(StopReason::Requested));
        let is_snapshot_wanted = control.take_snapshot_request();
        if reason.is_some() {
            control.clear_request();
        }
        if self.store.data().own.is_capturing() {
            // Whoever else asks is answered at the next safepoint, when the program has got its own answer.
            self.answer_guest(since);
        } else if reason.is_none() || is_snapshot_wanted {
            self.answer_desk(since);
        }
        control.settle();
        Ok(reason.map(Outcome::Suspended))
    }

    /// Takes the frames out of the control memory, unless that has been done. Not part of stopping, as it means looking
    /// at the functions that were active.
    pub(crate) fn read_frames(&mut self) -> Result<()> {
        let (State::Unwound, Some(control)) = (&self.state, self.control.clone()) else {
            return Ok(());
        };
        let program = self.program.clone();
        let module = program.parsed()?;
        let start = module.control_layout().frames() as usize;
        let end = control.get(layout::SAVE_POINTER) as usize;
        let bytes = control
            .memory()
            .view(start..end, &self.store)
            .unwrap_or_default();
        let frames = frames::read(&program, bytes)?;
        self.state = State::Suspended(Arc::new(SavedStack::new(frames)));
        Ok(())
    }

    /// Lays the frames out for clones to restore, and returns the clone of the outermost one.
    fn restore_frames(&mut self, stack: &SavedStack) -> Result<Func> {
        let Some(control) = self.control.clone() else {
            return Err(Error::Bare);
        };
        let restorer = stack.restorer(&self.program, self.store.data().phase, &self.call.export)?;
        let start = self.program.parsed()?.control_layout().frames();
        let range = start as usize..start as usize + restorer.bytes.len();
        if !control.memory().copy_in(range, &restorer.bytes) {
            return Err(Error::FramesFull {
                bytes: CONTROL_BYTES.into(),
            });
        }
        control.set(layout::RESTORE_POINTER, start);
        control.set(layout::SAVE_POINTER, start);
        for count in [
            layout::SAVED_FUNCTIONS,
            layout::SAVED_EXTERNS,
            layout::SAVED_EXCEPTIONS,
        ] {
            control.set(count, 0);
        }
        restorer.instantiate(&mut self.store, self.instance)
    }
}
