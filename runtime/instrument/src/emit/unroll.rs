//! Tiny loops go round several times between two polls.
//!
//! A test of the request word is two or three machine instructions, which a loop of four or five feels. Where the body of
//! a loop is short and holds no other safepoint, it is written several times; what goes back to the loop goes on with
//! the next copy, and only the last copy goes back to the poll:
//!
//! ```text
//! block $exit
//!   loop $loop
//!     …poll…
//!     block $next  …body, with $next for $loop…  br $exit  end
//!     block $next  …body…                        br $exit  end
//!     …body…  br $exit
//!   end  unreachable
//! end
//! ```
//!
//! Nothing else changes: a frame names the header of the loop, where each turn begins.

use super::Emitter;
use crate::error::Result;
use wasm_encoder as enc;
use wasmparser::{BinaryReader, Operator, OperatorsReader};

/// How many copies of a body there are.
const COPIES: usize = 4;
/// The longest body that is copied, in bytes.
const BODY_BYTES_MAX: usize = 40;

/// Where a loop lies in the code written, its `end` not yet.
pub(super) struct Written {
    /// Its `loop` instruction.
    pub opening: usize,
    /// Its body, behind the poll.
    pub body: usize,
    pub results: enc::BlockType,
}

/// An instruction with labels: where it lies in a body, and with labels counted from outside the loop shifted.
struct Branch {
    start: usize,
    end: usize,
    /// Each label, and whether it lies beyond the loop.
    labels: Vec<(u32, bool)>,
    kind: BranchKind,
}

#[derive(Clone, Copy)]
enum BranchKind {
    Always,
    If,
    /// The last label is the default.
    Table,
}

impl Emitter<'_, '_, '_> {
    /// Writes the body of a tiny loop several times, and its end. Returns whether it is one.
    pub(super) fn unroll(&mut self, written: Option<&Written>, live: bool) -> Result<bool> {
        let Some(written) = written else {
            return Ok(false);
        };
        let body = &self.code[written.body..];
        if body.len() > BODY_BYTES_MAX {
            return Ok(false);
        }
        let Some(branches) = branches(body)? else {
            return Ok(false);
        };
        if !branches.iter().any(|branch| branch.goes_back()) {
            return Ok(false);
        }
        let body = self.code.split_off(written.body);
        let head = self.code.split_off(written.opening);
        let before = self.code.len();
        self.sink()
            .block(written.results)
            .loop_(enc::BlockType::Empty);
        let mut operators = OperatorsReader::new(BinaryReader::new(&head, 0));
        operators.read()?;
        let opening = operators.original_position();
        let shift = self.code.len() as i64 - (before + opening) as i64;
        self.code.extend_from_slice(&head[opening..]);
        self.pads.enclose(written.opening, shift);
        for hint in self.hints.iter_mut().rev() {
            if (hint.0 as usize) < written.opening {
                break;
            }
            hint.0 = (i64::from(hint.0) + shift) as u32;
        }
        for copy in 1..=COPIES {
            let is_last = copy == COPIES;
            if !is_last {
                self.sink().block(enc::BlockType::Empty);
            }
            let added = if is_last { 1 } else { 2 };
            self.write_copy(&body, &branches, added);
            if live {
                self.sink().br(added);
            }
            if !is_last {
                self.sink().end();
            }
        }
        self.sink().end().unreachable().end();
        Ok(true)
    }

    /// Writes the body with `added` labels more between it and what lies outside the loop.
    fn write_copy(&mut self, body: &[u8], branches: &[Branch], added: u32) {
        let mut copied = 0;
        for branch in branches {
            self.code.extend_from_slice(&body[copied..branch.start]);
            copied = branch.end;
            let labels = branch.labels.iter();
            let labels = labels.map(|(label, is_outer)| label + if *is_outer { added } else { 0 });
            let mut labels: Vec<u32> = labels.collect();
            let last = labels.pop().unwrap_or(0);
            match branch.kind {
                BranchKind::Always => self.sink().br(last),
                BranchKind::If => self.sink().br_if(last),
                BranchKind::Table => self.sink().br_table(labels, last),
            };
        }
        self.code.extend_from_slice(&body[copied..]);
    }
}

impl Branch {
    /// Whether it may go to the loop.
    fn goes_back(&self) -> bool {
        self.labels.iter().any(|(_, is_outer)| !is_outer)
    }
}

/// The branches of a body that leave it or go back to its loop; none if it has something else with labels.
fn branches(body: &[u8]) -> Result<Option<Vec<Branch>>> {
    let mut found = Vec::new();
    let mut depth = 0u32;
    let mut operators = OperatorsReader::new(BinaryReader::new(body, 0));
    while !operators.eof() {
        let (operator, start) = operators.read_with_offset()?;
        let (labels, kind) = match &operator {
            Operator::Block { .. } | Operator::If { .. } => {
                depth += 1;
                continue;
            }
            Operator::End => {
                depth = depth.saturating_sub(1);
                continue;
            }
            Operator::Br { relative_depth } => (vec![*relative_depth], BranchKind::Always),
            Operator::BrIf { relative_depth } => (vec![*relative_depth], BranchKind::If),
            Operator::BrTable { targets } => {
                let mut labels = targets
                    .targets()
                    .collect::<std::result::Result<Vec<_>, _>>()?;
                labels.push(targets.default());
                (labels, BranchKind::Table)
            }
            Operator::Loop { .. }
            | Operator::TryTable { .. }
            | Operator::BrOnNull { .. }
            | Operator::BrOnNonNull { .. }
            | Operator::BrOnCast { .. }
            | Operator::BrOnCastFail { .. } => return Ok(None),
            _ => continue,
        };
        if labels.iter().all(|label| *label < depth) {
            continue;
        }
        found.push(Branch {
            start,
            end: operators.original_position(),
            labels: labels
                .into_iter()
                .map(|label| (label, label > depth))
                .collect(),
            kind,
        });
    }
    Ok(Some(found))
}
