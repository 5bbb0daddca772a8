//! What the program's imports reach: the host state of one instance, and the functions that act on it.

use crate::control::Control;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::guest::Guest;
use crate::guest_api::{self, Own};
use crate::limits::Limiter;
use crate::snapshot::{self, Passage};
use std::sync::Arc;
use wasmtime::{Caller, Linker, Memory};
use wsnap_snapshots::Phase;
use wsnap_wasi::{Errno, Stop, Wasi};

/// The state that host functions find.
pub(crate) struct HostState {
    pub wasi: Wasi,
    /// None for a program that runs bare.
    pub control: Option<Arc<Control>>,
    /// The memory that WASI calls read and write, once the module is instantiated.
    pub memory: Option<Memory>,
    /// Why the program is unwinding, once it is; none if it is for a snapshot alone.
    pub stop: Option<StopReason>,
    /// None for a program that runs bare, and until the module is instantiated.
    pub guest: Option<Arc<Guest>>,
    /// What the program is doing.
    pub phase: Phase,
    /// What the program can ask about itself.
    pub own: Own,
    /// Asked before a memory or a table grows, once there are limits.
    pub limiter: Limiter,
}

/// Why a program was suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Somebody asked for it through a [`crate::Handle`].
    Requested,
    /// It reached the safepoint that it was told to stop at.
    Safepoint,
    /// It would have had to wait for standard input, and was told to stop then.
    Stdin,
}

/// The program ended itself, by `proc_exit`.
#[derive(Debug, thiserror::Error)]
#[error("exit with status {0}")]
pub(crate) struct Exit(pub u32);

/// The frame buffer is full.
#[derive(Debug, thiserror::Error)]
#[error("the call stack does not fit into the frame buffer")]
pub(crate) struct FramesFull;

/// A safepoint asks what to do.
pub(crate) fn at_safepoint(caller: &mut Caller<'_, HostState>) {
    let Some(control) = caller.data().control.clone() else {
        return;
    };
    let counted_out = control.take_counted_out().then_some(StopReason::Safepoint);
    decide(caller, &control, counted_out);
}

/// A blocking call was cut short before it took effect. Returns whether the program unwinds; otherwise the call is to be
/// made again at once.
fn is_suspended(caller: &mut Caller<'_, HostState>) -> bool {
    let Some(control) = caller.data().control.clone() else {
        caller.data().wasi.interrupter().clear();
        return false;
    };
    let at_stdin = caller.data_mut().wasi.stopped_at_stdin();
    decide(caller, &control, at_stdin.then_some(StopReason::Stdin)) == Passage::Unwinds
}

/// Does what is wanted of the program. `reason` is one of its own to stop.
fn decide(
    caller: &mut Caller<'_, HostState>,
    control: &Control,
    reason: Option<StopReason>,
) -> Passage {
    loop {
        let stops_next = control.take_stop_at_next();
        let reason = reason
            .or(stops_next.then_some(StopReason::Safepoint))
            .or(control.is_stop_wanted().then_some(StopReason::Requested));
        let passage = match reason {
            Some(_) => Passage::Unwinds,
            None if control.take_snapshot_request() => snapshot::in_passing(caller),
            None => Passage::GoesOn,
        };
        if passage == Passage::Unwinds {
            caller.data_mut().stop = reason;
            control.begin_unwinding();
            return Passage::Unwinds;
        }
        if !control.settle() {
            return Passage::GoesOn;
        }
    }
}

/// Makes a WASI call on the program's memory, again and again until it took effect or the program unwinds.
fn call(
    caller: &mut Caller<'_, HostState>,
    mut function: impl FnMut(&mut Wasi, &mut [u8]) -> Result<Errno, Stop>,
) -> wasmtime::Result<u32> {
    let known = caller.data().memory;
    // In the start function of a program that runs bare nobody has looked the memory up yet.
    let memory = known.or_else(|| caller.get_export("memory")?.into_memory());
    let memory =
        memory.ok_or_else(|| wasmtime::Error::msg("the module calls WASI without a memory"))?;
    count_call(caller);
    let result = loop {
        let (bytes, state) = memory.data_and_store_mut(&mut *caller);
        match function(&mut state.wasi, bytes) {
            Ok(errno) => break Ok(errno.raw()),
            Err(Stop::Exit(status)) => break Err(Exit(status).into()),
            Err(Stop::Suspended) if is_suspended(caller) => break Ok(0),
            Err(Stop::Suspended) => {}
        }
    };
    count_call(caller);
    result
}

fn count_call(caller: &Caller<'_, HostState>) {
    if let Some(control) = &caller.data().control {
        control.count_call();
    }
}

/// All functions that the host provides.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<HostState>> {
    let mut linker = Linker::new(engine.wasmtime());
    link(&mut linker)
        .and_then(|()| link_unstable(&mut linker))
        .and_then(|()| guest_api::link(&mut linker))
        .map_err(Error::Internal)?;
    Ok(linker)
}

/// The module of WASI preview 1.
const PREVIEW_1: &str = "wasi_snapshot_preview1";

/// The module of WASI preview 0, which programs of 2019 and 2020 import.
const PREVIEW_0: &str = "wasi_unstable";

macro_rules! define_link {
    ($($name:ident($($parameter:ident: $type:ident),*) -> $result:ident;)*) => {
        /// The names of the functions of preview 1.
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
            $(define_link!(@one linker, $result $name($($parameter: $type),*));)*
            Ok(())
        }
    };
    (@one $linker:ident, errno $name:ident($($parameter:ident: $type:ident),*)) => {
        $linker.func_wrap(
            PREVIEW_1,
            stringify!($name),
            |mut caller: Caller<'_, HostState>, $($parameter: $type),*| {
                call(&mut caller, |wasi, memory| wasi.$name(memory, $($parameter),*))
            },
        )?;
    };
    (@one $linker:ident, never $name:ident($($parameter:ident: $type:ident),*)) => {
        $linker.func_wrap(
            PREVIEW_1,
            stringify!($name),
            |mut caller: Caller<'_, HostState>, $($parameter: $type),*| -> wasmtime::Result<()> {
                match caller.data_mut().wasi.$name(&mut [], $($parameter),*) {
                    Ok(never) => match never {},
                    Err(Stop::Exit(status)) => Err(Exit(status).into()),
                    Err(Stop::Suspended) => Err(wasmtime::Error::msg("a call that never returns cannot be suspended")),
                }
            },
        )?;
    };
}

wsnap_wasi::for_each_function!(define_link);

macro_rules! define_link_unstable {
    ($($name:ident = $method:ident($($parameter:ident: $type:ident),*);)*) => {
        /// Links preview 0: what it has in common with preview 1, and what differs.
        fn link_unstable(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
            let differing = [$(stringify!($name)),*];
            for name in NAMES {
                // Preview 0 had no such function.
                if *name != "sock_accept" && !differing.contains(name) {
                    linker.alias(PREVIEW_1, name, PREVIEW_0, name)?;
                }
            }
            $(linker.func_wrap(
                PREVIEW_0,
                stringify!($name),
                |mut caller: Caller<'_, HostState>, $($parameter: $type),*| {
                    call(&mut caller, |wasi, memory| wasi.$method(memory, $($parameter),*))
                },
            )?;)*
            Ok(())
        }
    };
}

wsnap_wasi::for_each_unstable_function!(define_link_unstable);
