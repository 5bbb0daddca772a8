//! Which locals are live where, by the standard backward data flow over single instructions: what a frame must hold.

use crate::code::{Code, Kind};
use wasmparser::Operator;

/// The locals that are live before every instruction that somebody asked for.
pub(crate) struct Liveness {
    words: usize,
    /// For every basic block: its first instruction, and what is live before it.
    starts: Vec<usize>,
    before: Vec<Vec<u64>>,
    after: Vec<Vec<u64>>,
}

/// Where control can go from an instruction, besides to the next.
fn jumps(code: &Code<'_>, index: usize, mut visit: impl FnMut(usize)) {
    let mut branch = |depth| visit(code.branch(index, depth).to);
    match &code.ops[index] {
        Operator::Br { relative_depth }
        | Operator::BrIf { relative_depth }
        | Operator::BrOnNull { relative_depth }
        | Operator::BrOnNonNull { relative_depth }
        | Operator::BrOnCast { relative_depth, .. }
        | Operator::BrOnCastFail { relative_depth, .. } => branch(*relative_depth),
        Operator::BrTable { targets } => {
            for depth in targets.targets().flatten().chain([targets.default()]) {
                branch(depth);
            }
        }
        Operator::If { .. } => visit(code.alternative(index)),
        Operator::Else => visit(code.constructs[code.within[index]].end),
        Operator::Call { .. }
        | Operator::CallIndirect { .. }
        | Operator::CallRef { .. }
        | Operator::Throw { .. }
        | Operator::ThrowRef => {
            for handler in code.handlers(index) {
                visit(handler.jump.to);
            }
        }
        _ => {}
    }
}

/// Whether control never goes on to the next instruction.
fn ends(code: &Code<'_>, index: usize) -> bool {
    matches!(
        code.ops[index],
        Operator::Br { .. }
            | Operator::BrTable { .. }
            | Operator::Else
            | Operator::Return
            | Operator::Unreachable
            | Operator::Throw { .. }
            | Operator::ThrowRef
            | Operator::ReturnCall { .. }
            | Operator::ReturnCallIndirect { .. }
            | Operator::ReturnCallRef { .. }
    ) || code.is_last(index)
}

impl Liveness {
    /// Solves the data flow for a function.
    pub fn new(code: &Code<'_>) -> Self {
        let starts = Self::block_starts(code);
        let words = code.locals.len().div_ceil(64);
        let block_of = |index: usize| starts.partition_point(|start| *start <= index) - 1;
        let successors: Vec<Vec<usize>> = (0..starts.len())
            .map(|block| {
                let end = starts.get(block + 1).copied().unwrap_or(code.ops.len());
                let mut list = Vec::new();
                jumps(code, end - 1, |to| list.push(block_of(to)));
                if !ends(code, end - 1) {
                    list.push(block + 1);
                }
                list
            })
            .collect();
        let mut liveness = Self {
            words,
            before: vec![vec![0; words]; starts.len()],
            after: vec![vec![0; words]; starts.len()],
            starts,
        };
        loop {
            let mut changed = false;
            for block in (0..liveness.starts.len()).rev() {
                let mut live = vec![0; words];
                for successor in &successors[block] {
                    for (word, other) in live.iter_mut().zip(&liveness.before[*successor]) {
                        *word |= other;
                    }
                }
                liveness.after[block].clone_from(&live);
                liveness.walk(code, block, liveness.starts[block], &mut live);
                changed |= liveness.before[block] != live;
                liveness.before[block] = live;
            }
            if !changed {
                return liveness;
            }
        }
    }

    fn block_starts(code: &Code<'_>) -> Vec<usize> {
        let mut is_start = vec![false; code.ops.len() + 1];
        is_start[0] = true;
        for construct in &code.constructs {
            if construct.kind == Kind::Loop {
                is_start[construct.start + 1] = true;
            }
        }
        for index in 0..code.ops.len() {
            let mut jumping = false;
            jumps(code, index, |to| {
                is_start[to] = true;
                jumping = true;
            });
            if jumping || ends(code, index) {
                is_start[index + 1] = true;
            }
        }
        (0..code.ops.len())
            .filter(|index| is_start[*index])
            .collect()
    }

    /// Goes backwards from the end of a block to `index`.
    fn walk(&self, code: &Code<'_>, block: usize, index: usize, live: &mut [u64]) {
        let end = self
            .starts
            .get(block + 1)
            .copied()
            .unwrap_or(code.ops.len());
        for operator in code.ops[index..end].iter().rev() {
            match *operator {
                Operator::LocalGet { local_index } => {
                    live[local_index as usize / 64] |= 1 << (local_index % 64);
                }
                Operator::LocalSet { local_index } | Operator::LocalTee { local_index } => {
                    live[local_index as usize / 64] &= !(1 << (local_index % 64));
                }
                _ => {}
            }
        }
    }

    /// The locals that are live before an instruction, ascending.
    pub fn before(&self, code: &Code<'_>, index: usize) -> Vec<u32> {
        let block = self.starts.partition_point(|start| *start <= index) - 1;
        let mut live = self.after[block].clone();
        self.walk(code, block, index, &mut live);
        let bits = (0..self.words * 64).filter(|bit| live[bit / 64] >> (bit % 64) & 1 == 1);
        bits.map(|bit| bit as u32).collect()
    }
}
