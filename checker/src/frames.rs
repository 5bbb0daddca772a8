//! Where values lie in saved frames, as the rewriter's documentation has it. Written down here a second time on purpose.

use crate::control;
use wasmparser::ValType;

/// How many 32-bit and 64-bit values of a frame are staged in globals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Staged {
    pub short: u32,
    pub long: u32,
}

/// The most of each. So many globals a rewritten module has for them.
pub(crate) const STAGED_MAX: Staged = Staged {
    short: 64,
    long: 32,
};

impl Staged {
    pub fn from_word(word: u32) -> Self {
        Self {
            short: word & 0xff,
            long: (word >> 8) & 0xff,
        }
    }

    fn size(self) -> u32 {
        4 * self.short + 8 * self.long
    }
}

/// What of a frame a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Slot {
    /// In the staging global with this number, all 32-bit ones being before the others.
    Staged(u32),
    /// Stored so many bytes behind where such values begin.
    Direct(u32),
}

/// Gives slots, one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots {
    pub max: Staged,
    pub given: Staged,
    /// Whether a value that could have been staged was not.
    pub exceeds: (bool, bool),
    pub direct: u32,
}

impl Slots {
    pub fn give(&mut self, ty: ValType) -> Slot {
        match ty {
            ValType::I32 | ValType::Ref(_) if self.given.short < self.max.short => {
                self.given.short += 1;
                return Slot::Staged(self.given.short - 1);
            }
            ValType::I64 if self.given.long < self.max.long => {
                self.given.long += 1;
                return Slot::Staged(STAGED_MAX.short + self.given.long - 1);
            }
            ValType::I32 | ValType::Ref(_) => self.exceeds.0 = true,
            ValType::I64 => self.exceeds.1 = true,
            _ => {}
        }
        self.direct += control::size(ty);
        Slot::Direct(self.direct - control::size(ty))
    }

    /// Whether a frame that says that `staged` values were staged is read as these slots have it.
    pub fn agree(&self, staged: Staged) -> bool {
        let agrees = |given: u32, max: u32, exceeds: bool, staged: u32| {
            given <= staged && staged <= max && (!exceeds || staged == max)
        };
        let (given, max) = (self.given, self.max);
        agrees(given.short, max.short, self.exceeds.0, staged.short)
            && agrees(given.long, max.long, self.exceeds.1, staged.long)
    }
}

/// Where in a frame the values begin that are stored directly.
pub(crate) fn direct_values(staged: Staged) -> u32 {
    control::SAVED_VALUES + staged.size()
}
