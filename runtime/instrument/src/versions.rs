//! Which locals certainly hold the same value at two places of a function: a local has a new *version* wherever it is
//! written, and wherever ways meet of which one has written it.
//!
//! These are the values of static single assignment form, found without building it: control flow is structured, so
//! ways meet at the ends of control instructions and at the headers of loops only. It errs to one side: two versions can
//! be the same value. Nothing becomes wrong by that, since versions only choose which code is shared.

use crate::analysis::Construct;

/// Looks at no more control instructions around a place than this, so that time stays linear in the size of the code.
const DEPTH_MAX: usize = 256;

/// The writes of all locals of a function, and the control instructions around them.
pub(crate) struct Versions {
    /// Offsets of writes, ascending, per local.
    writes: Vec<Vec<u32>>,
    /// For each local, how many of its writes lie before the last place asked about.
    passed: Vec<usize>,
    /// For each control instruction, the one around it.
    around: Vec<Option<u32>>,
    /// The loops within which the current place lies, outermost first.
    loops: Vec<u32>,
    /// How many control instructions begin before the current place.
    begun: usize,
}

impl Versions {
    /// For a function with the control instructions `constructs`, and `writes` as pairs of local and offset, ascending by
    /// offset.
    pub fn new(constructs: &[Construct], writes: &[(u32, u32)]) -> Self {
        let locals = writes.iter().map(|(local, _)| *local as usize + 1).max();
        let mut by_local = vec![Vec::new(); locals.unwrap_or(0)];
        for &(local, offset) in writes {
            by_local[local as usize].push(offset);
        }
        let mut open: Vec<u32> = Vec::new();
        let mut around = Vec::with_capacity(constructs.len());
        for (index, construct) in (0u32..).zip(constructs) {
            while open
                .last()
                .is_some_and(|outer| constructs[*outer as usize].end < construct.start)
            {
                open.pop();
            }
            around.push(open.last().copied());
            open.push(index);
        }
        Self {
            passed: vec![0; by_local.len()],
            writes: by_local,
            around,
            loops: Vec::new(),
            begun: 0,
        }
    }

    /// Goes on to the place at `offset`, which is none before those gone to earlier.
    pub fn go_to(&mut self, constructs: &[Construct], offset: u32) {
        while let Some(outer) = self.loops.last()
            && constructs[*outer as usize].end < offset
        {
            self.loops.pop();
        }
        while let Some(next) = constructs.get(self.begun)
            && next.start < offset
        {
            if next.is_loop && next.end >= offset {
                self.loops.push(self.begun as u32);
            }
            self.begun += 1;
        }
    }

    /// The version of a local at the place at `offset`, which was gone to: the offset from which on it is that. A local
    /// that has not been written yet has version 0.
    pub fn at(&mut self, constructs: &[Construct], local: u32, offset: u32) -> u32 {
        let local = local as usize;
        let Some(writes) = self.writes.get(local) else {
            return 0;
        };
        let passed = &mut self.passed[local];
        while writes.get(*passed).is_some_and(|write| *write < offset) {
            *passed += 1;
        }
        let last = passed.checked_sub(1).map(|index| writes[index]);
        let since = last.map_or(0, |write| {
            write.max(meeting(constructs, &self.around, write, offset))
        });
        let Some(&next) = writes.get(*passed) else {
            return since;
        };
        // A write further on comes back here through the header of a loop around both.
        let loops = self.loops.iter().rev().take(DEPTH_MAX);
        let mut loops = loops.map(|index| &constructs[*index as usize]);
        let header = loops.find(|construct| construct.end > next);
        since.max(header.map_or(0, |construct| construct.start))
    }
}

/// Where the way from a write meets ways without it before `offset`: the end of the outermost control instruction around
/// the write that has ended, or the `else` behind it. Zero if the write is the only way to come from.
fn meeting(constructs: &[Construct], around: &[Option<u32>], write: u32, offset: u32) -> u32 {
    let begun = constructs.partition_point(|construct| construct.start < write);
    let mut current = begun.checked_sub(1).map(|index| index as u32);
    // The one that begins last before the write can have ended before it; those around it are then the candidates.
    for _ in 0..DEPTH_MAX {
        let Some(index) = current.filter(|index| constructs[*index as usize].end < write) else {
            break;
        };
        current = around[index as usize];
    }
    let mut met = 0;
    for _ in 0..DEPTH_MAX {
        let Some(index) = current else { return met };
        let construct = &constructs[index as usize];
        if construct.end >= offset {
            let middle = construct.middle.filter(|middle| *middle < offset);
            return met.max(middle.filter(|middle| write < *middle).unwrap_or(0));
        }
        met = construct.end;
        current = around[index as usize];
    }
    // Too far in to tell: a version of this place's own.
    offset
}
