//! The two clocks of the guest.
//!
//! The guest's monotonic clock counts the nanoseconds that the program has been running: it starts at zero, stands
//! still while the program is stored, and goes on from the saved value. The realtime clock is the host's.
//!
//! Of a deterministic program both are one virtual clock: each reading advances it by a fixed step, and a sleep by its
//! own length without any waiting.

use crate::calls::Outcome;
use crate::errno::Errno;
use crate::memory::Memory;
use crate::wasi::Wasi;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What each reading of a deterministic clock adds.
pub const DETERMINISTIC_STEP_NS: u64 = 1_000_000;

/// The realtime at which a deterministic program starts: 2020-01-01T00:00:00Z.
pub const DETERMINISTIC_EPOCH_NS: u64 = 1_577_836_800_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClockId {
    Realtime,
    Monotonic,
}

/// The names of clocks: processor time clocks exist in preview 1, but as under wasmtime nobody has them.
pub(crate) enum NoClock {
    ProcessorTime,
    Unknown,
}

impl ClockId {
    pub(crate) fn from_raw(id: u32) -> Result<ClockId, NoClock> {
        match id {
            0 => Ok(ClockId::Realtime),
            1 => Ok(ClockId::Monotonic),
            2 | 3 => Err(NoClock::ProcessorTime),
            _ => Err(NoClock::Unknown),
        }
    }
}

pub(crate) enum Clocks {
    Real {
        /// When this process began to run the program.
        since: Instant,
        /// What the guest's monotonic clock showed then.
        base_ns: u64,
    },
    Deterministic {
        now_ns: u64,
    },
}

impl Clocks {
    /// Clocks whose monotonic one shows `now_ns`.
    pub(crate) fn starting_at(now_ns: u64, deterministic: bool) -> Clocks {
        if deterministic {
            Clocks::Deterministic { now_ns }
        } else {
            Clocks::Real {
                since: Instant::now(),
                base_ns: now_ns,
            }
        }
    }

    /// The guest's monotonic time, without advancing a deterministic clock.
    pub(crate) fn monotonic_ns(&self) -> u64 {
        match self {
            Clocks::Real { since, base_ns } => {
                let elapsed_ns = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
                base_ns.saturating_add(elapsed_ns)
            }
            Clocks::Deterministic { now_ns } => *now_ns,
        }
    }

    /// The time since 1970, without advancing a deterministic clock.
    pub(crate) fn realtime_ns(&self) -> u64 {
        match self {
            Clocks::Real { .. } => since_epoch_ns(SystemTime::now()),
            Clocks::Deterministic { now_ns } => DETERMINISTIC_EPOCH_NS.saturating_add(*now_ns),
        }
    }

    pub(crate) fn is_deterministic(&self) -> bool {
        matches!(self, Clocks::Deterministic { .. })
    }

    /// Lets the time of a deterministic program pass until `deadline_ns`; real time passes by itself.
    pub(crate) fn advance_to(&mut self, deadline_ns: u64) {
        if let Clocks::Deterministic { now_ns } = self {
            *now_ns = deadline_ns.max(*now_ns);
        }
    }

    fn read(&mut self, clock: ClockId) -> u64 {
        if let Clocks::Deterministic { now_ns } = self {
            *now_ns = now_ns.saturating_add(DETERMINISTIC_STEP_NS);
        }
        match clock {
            ClockId::Realtime => self.realtime_ns(),
            ClockId::Monotonic => self.monotonic_ns(),
        }
    }

    fn resolution_ns(&self) -> u64 {
        match self {
            Clocks::Real { .. } => 1,
            Clocks::Deterministic { .. } => DETERMINISTIC_STEP_NS,
        }
    }
}

/// Nanoseconds since 1970; earlier times are 0, later ones than preview 1 can express its last.
pub(crate) fn since_epoch_ns(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |duration| {
        u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
    })
}

fn clock(id: u32) -> Result<ClockId, Errno> {
    ClockId::from_raw(id).map_err(|no_clock| match no_clock {
        NoClock::ProcessorTime => Errno::Badf,
        NoClock::Unknown => Errno::Inval,
    })
}

pub(crate) fn clock_res_get(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    id: u32,
    resolution: u32,
) -> Outcome {
    clock(id)?;
    Ok(memory.write_u64(resolution, wasi.clocks.resolution_ns())?)
}

pub(crate) fn clock_time_get(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    id: u32,
    _precision: u64,
    time: u32,
) -> Outcome {
    let clock = clock(id)?;
    memory.check(time, 8)?;
    Ok(memory.write_u64(time, wasi.clocks.read(clock))?)
}
