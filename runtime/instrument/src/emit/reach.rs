//! Which code of a clone can be reached from behind a target.
//!
//! A clone starts on its way to a target. What no path from behind a target leads to is therefore executed on that way or
//! never, and a branch towards the target needs no test there; what it passes over is dead. Of the main loop of an
//! interpreter, in its first turn, that leaves the case in which the target lies.
//!
//! The paths are followed as the code is written: from each instruction to the next one, and from branches to the ends that
//! they go to. What is within a loop that holds a target and goes round can be reached from its header, which a way round
//! leads to. A branch back to a loop is taken to lead to its end, too, which costs a test and harms nothing.

use super::Emitter;
use super::control::Control;
use crate::points::Point;
use wasmparser::{Catch, Operator};

impl Emitter<'_, '_, '_> {
    /// Before the instruction at `offset`: from here on a target may lie behind, if one is here.
    pub(super) fn pass_targets(&mut self, offset: u32) {
        let points = [Point::Next(offset), Point::Calling(offset)];
        self.behind_target |= points.iter().any(|point| self.targets.id(*point).is_some());
    }

    /// Follows the branches of `operator`, which opens and closes nothing.
    pub(super) fn follow_branches(&mut self, operator: &Operator<'_>) {
        if !self.behind_target {
            return;
        }
        match operator {
            Operator::Br { relative_depth }
            | Operator::BrIf { relative_depth }
            | Operator::BrOnNull { relative_depth }
            | Operator::BrOnNonNull { relative_depth }
            | Operator::BrOnCast { relative_depth, .. }
            | Operator::BrOnCastFail { relative_depth, .. } => self.reach_end(*relative_depth),
            Operator::BrTable { targets } => {
                for depth in targets.targets().flatten() {
                    self.reach_end(depth);
                }
                self.reach_end(targets.default());
            }
            _ => {}
        }
    }

    /// Follows the exceptions that code within a `try_table`, which is about to be opened, throws.
    pub(super) fn follow_catches(&mut self, catches: &[Catch], holds_targets: bool) {
        if !self.behind_target && !holds_targets {
            return;
        }
        for catch in catches {
            let (Catch::One { label, .. }
            | Catch::OneRef { label, .. }
            | Catch::All { label }
            | Catch::AllRef { label }) = *catch;
            self.reach_end(label);
        }
    }

    fn reach_end(&mut self, depth: u32) {
        let last = self.frames.len() - 1;
        if let Some(frame) = self.frames.get_mut(last - depth as usize) {
            frame.is_end_behind_target = true;
        }
    }

    /// At `else`, to which `live` code comes: the second arm starts as the first one did.
    pub(super) fn follow_alternative(&mut self, live: bool) {
        let behind = live && self.behind_target;
        if let Some(frame) = self.frames.last_mut() {
            frame.is_end_behind_target |= behind;
            self.behind_target = frame.is_start_behind_target;
        }
    }

    /// Behind the end of `frame`, to which `live` code comes. An `if` that `lacks_alternative` may have been passed over.
    pub(super) fn follow_end(&mut self, frame: &Control, live: bool, lacks_alternative: bool) {
        self.behind_target = live && self.behind_target
            || frame.is_end_behind_target
            || lacks_alternative && frame.is_start_behind_target;
    }
}
