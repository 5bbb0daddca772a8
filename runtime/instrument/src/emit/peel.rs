//! Clones leave the loops in the middle of which they are entered.
//!
//! The way to a target makes each loop around it slower: every turn asks whether there is a target to go to, and values
//! that have been restored meet those that the turn before has computed. So such a loop is written twice: for the turn in
//! which the target lies, which goes round no more; and as it is in the function itself, for all others.
//!
//! ```text
//! block $exit
//!   block $again  …way to the target, poll, body, with $again for $loop…  br $exit  end
//!   loop $loop  …poll, body…  end
//! end
//! ```
//!
//! For the second copy the emitter goes back to the `loop` instruction. Little of the first one can be reached, see `reach.rs`.

use super::{Emitter, Operand, new_validator};
use crate::analysis::Construct;
use crate::error::Result;
use crate::versions::Versions;

/// How many loops of a clone are written twice at most: for each the function is validated once more.
const LOOPS_MAX: usize = 8;
/// Nor do the second copies have more bytes in the original than so many times the function.
const GROWTH_MAX: u32 = 2;

/// A loop of which the first copy is being written.
pub(super) struct Peeled {
    /// Its place among the constructs.
    pub construct: usize,
    /// The operands before it.
    pub stack: Vec<Operand>,
}

impl<'a> Emitter<'_, '_, 'a> {
    /// The loops around targets that are written twice, by their places among the constructs: the innermost first, in
    /// which a program spends most time.
    pub(super) fn choose_peeled(&mut self) {
        let body = self.module.body(self.function).range();
        let mut left = GROWTH_MAX.saturating_mul((body.end - body.start) as u32);
        let length = |construct: &Construct| construct.end - construct.start;
        let constructs = self.analysis.constructs.iter().enumerate();
        let mut loops: Vec<(usize, &Construct)> = constructs
            .filter(|(_, construct)| construct.is_loop)
            .filter(|(_, construct)| {
                let targets = self.targets.within(construct.start, construct.end);
                !targets.is_empty()
            })
            .collect();
        loops.sort_by_key(|(_, construct)| length(construct));
        let chosen = loops.into_iter().take(LOOPS_MAX);
        self.peeled = chosen
            .take_while(|(_, construct)| {
                let fits = length(construct) <= left;
                left = left.saturating_sub(length(construct));
                fits
            })
            .map(|(index, _)| index)
            .collect();
    }

    /// Whether two copies of a loop are to be written, now that it is opened.
    pub(super) fn is_peeled(&self, construct: usize) -> bool {
        let Construct { start, end, .. } = self.analysis.constructs[construct];
        self.peeled.contains(&construct) && !self.targets.within(start, end).is_empty()
    }

    /// Ends the first copy of a loop, and goes back for the second one to the `loop` instruction.
    pub(super) fn go_back(&mut self, peeled: Peeled, live: bool) -> Result<()> {
        if live {
            self.sink().br(1);
        }
        self.sink().end();
        let construct = self.analysis.constructs[peeled.construct].clone();
        self.targets.hide(construct.start, construct.end);
        self.behind_target = true;
        self.next_construct = peeled.construct;
        self.second_copy = Some(peeled.construct);
        self.stack = peeled.stack;
        self.versions = Versions::new(&self.analysis.constructs, &self.analysis.writes);
        self.copies += 1;
        self.go_to(construct.start as usize)
    }

    /// Goes to the instruction at `offset`, with a validator that has seen those before it.
    fn go_to(&mut self, offset: usize) -> Result<()> {
        self.validator = new_validator(self.module, self.function)?;
        let mut operators = self.module.body(self.function).get_operators_reader()?;
        while operators.original_position() < offset {
            let (operator, at) = operators.read_with_offset()?;
            self.validator.op(at, &operator)?;
        }
        self.rewound = Some(operators);
        Ok(())
    }
}
