//! Staging: how most values get from a function that leaves into its frame.
//!
//! To store a value into a frame takes an address, and compilers make four instructions of it; to set a global takes one. So a
//! rewritten module has some globals of its own. Where a function leaves it sets as many of them as it has values, and a helper
//! ([`crate::helpers::push_frame`]) copies them into the frame. What does not fit is stored into the frame directly, and so are
//! values of other types; all values of functions that store few, which would feel the call of the helper in their use of
//! registers; and all that clones save, whose modules have no such globals.

use crate::types::ValueClass;

/// So many values of a type can be staged in a frame.
pub(crate) const STAGED_MAX: Staged = Staged { i32s: 64, i64s: 32 };

/// What a module has for staging values.
#[derive(Clone, Copy)]
pub(crate) struct Staging {
    /// The first of the globals: so many for 32-bit values, then those for 64-bit ones.
    pub globals: u32,
    /// The function that completes a frame.
    pub push_frame: u32,
}

impl Staging {
    /// The global for a staged value; none for one that is stored directly.
    pub fn global(self, slot: Slot) -> Option<u32> {
        match slot {
            Slot::I32(number) => Some(self.globals + number),
            Slot::I64(number) => Some(self.globals + STAGED_MAX.i32s + number),
            Slot::Direct(_) => None,
        }
    }
}

/// How many values of a frame, at most, were staged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Staged {
    /// 32-bit integers, and references by their numbers.
    pub i32s: u32,
    /// 64-bit integers.
    pub i64s: u32,
}

impl Staged {
    /// From the word in a frame's header.
    pub fn from_word(word: u32) -> Self {
        Self {
            i32s: word & 0xff,
            i64s: word >> 8 & 0xff,
        }
    }

    pub(crate) fn to_word(self) -> u32 {
        self.i32s | self.i64s << 8
    }

    /// How long they are in a frame, in bytes.
    pub fn size_bytes(self) -> u32 {
        self.i32s * 4 + self.i64s * 8
    }

    /// As many as both have of each type.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            i32s: self.i32s.max(other.i32s),
            i64s: self.i64s.max(other.i64s),
        }
    }
}

/// What of a frame a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// A staged 32-bit value, by its number.
    I32(u32),
    /// A staged 64-bit value, by its number.
    I64(u32),
    /// A value that is stored directly, so many bytes behind where such values begin.
    Direct(u32),
}

impl Slot {
    /// Where it lies behind the header of a frame of which `staged` values were staged, in bytes.
    pub fn offset(self, staged: Staged) -> u32 {
        match self {
            Self::I32(number) => 4 * number,
            Self::I64(number) => 4 * staged.i32s + 8 * number,
            Self::Direct(offset) => staged.size_bytes() + offset,
        }
    }
}

/// Gives the values of a frame their slots, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    max: Staged,
    given: Staged,
    direct: u32,
}

impl Slots {
    /// For frames that stage no more than `max`.
    pub fn new(max: Staged) -> Self {
        Self {
            max,
            given: Staged::default(),
            direct: 0,
        }
    }

    /// A slot for a value of this class.
    pub fn give(&mut self, class: ValueClass) -> Slot {
        match class {
            ValueClass::I32 | ValueClass::Function | ValueClass::Extern | ValueClass::Exception
                if self.given.i32s < self.max.i32s =>
            {
                self.given.i32s += 1;
                Slot::I32(self.given.i32s - 1)
            }
            ValueClass::I64 if self.given.i64s < self.max.i64s => {
                self.given.i64s += 1;
                Slot::I64(self.given.i64s - 1)
            }
            _ => {
                self.direct += class.size_bytes();
                Slot::Direct(self.direct - class.size_bytes())
            }
        }
    }

    /// How many are staged so far.
    pub fn staged(&self) -> Staged {
        self.given
    }

    /// How long those are that are stored directly, in bytes.
    pub fn direct_bytes(&self) -> u32 {
        self.direct
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: [ValueClass; 5] = [
        ValueClass::I32,
        ValueClass::I64,
        ValueClass::F64,
        ValueClass::Extern,
        ValueClass::V128,
    ];

    /// The slots of values of these classes.
    fn slots(classes: &[ValueClass], max: Staged) -> (Vec<Slot>, Slots) {
        let mut slots = Slots::new(max);
        let given = classes.iter().map(|class| slots.give(*class)).collect();
        (given, slots)
    }

    #[test]
    fn who_knows_only_how_many_were_staged_finds_the_same_slots() {
        for length in 0..200 {
            for step in 1..7 {
                let class = |place: usize| CLASSES[place * step % 7 % CLASSES.len()];
                let classes: Vec<ValueClass> = (0..length).map(class).collect();
                let (given, written) = slots(&classes, STAGED_MAX);
                let word = written.staged().to_word();
                assert_eq!(Staged::from_word(word), written.staged());
                let (found, read) = slots(&classes, Staged::from_word(word));
                assert_eq!(given, found);
                assert_eq!(written.direct_bytes(), read.direct_bytes());
            }
        }
    }

    #[test]
    fn slots_lie_side_by_side() {
        for length in 0..200 {
            let classes: Vec<ValueClass> = (0..length)
                .map(|place| CLASSES[place % CLASSES.len()])
                .collect();
            let (given, slots) = slots(&classes, STAGED_MAX);
            let staged = slots.staged();
            let mut bytes: Vec<u32> = given
                .iter()
                .zip(&classes)
                .flat_map(|(slot, class)| {
                    let offset = slot.offset(staged);
                    offset..offset + class.size_bytes()
                })
                .collect();
            bytes.sort_unstable();
            assert!(
                bytes
                    .into_iter()
                    .eq(0..staged.size_bytes() + slots.direct_bytes())
            );
        }
    }
}
