//! What is known at a place of the rewritten code: which of its values are which of the original's.

use std::collections::HashMap;

/// A value, by a number that it shares with all that are certainly equal. Some are known constants of inserted code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Value(u32);

const CONSTANT: u32 = 1 << 31;

impl Value {
    /// A constant of inserted code, unless it is too large to matter.
    pub fn constant(number: i32) -> Option<Self> {
        let number = u32::try_from(number).ok()?;
        (number < CONSTANT).then_some(Self(number | CONSTANT))
    }

    /// The constant that the value is known to be.
    pub fn known(self) -> Option<u32> {
        (self.0 & CONSTANT != 0).then_some(self.0 & !CONSTANT)
    }
}

/// Makes values that are equal to no others.
#[derive(Debug, Default)]
pub(crate) struct Values(u32);

impl Values {
    pub fn fresh(&mut self) -> Value {
        self.0 += 1;
        Value(self.0)
    }
}

/// The locals and operands of one of the two functions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side {
    pub locals: Vec<Value>,
    pub stack: Vec<Value>,
}

impl Side {
    /// Leaves the stack as a branch does.
    pub fn cut(&mut self, height: usize, arity: usize) {
        let from = self.stack.len().saturating_sub(arity);
        if height < from {
            self.stack.drain(height..from);
        }
    }

    fn all(&self) -> impl Iterator<Item = Value> {
        self.locals.iter().chain(&self.stack).copied()
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        self.locals.iter_mut().chain(&mut self.stack)
    }
}

/// All loops around, however many.
pub(crate) const ALL_LOOPS: u32 = u32::MAX;

/// Where the original stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    /// The instruction that is executed next.
    pub index: usize,
    /// It is a call, whose arguments are gone and which goes on in a clone.
    pub calling: bool,
}

/// What is known at a place of the rewritten code.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub at: At,
    pub original: Side,
    pub rewritten: Side,
    /// The call that has just returned and may have come back unwinding, until this was tested.
    pub unchecked: Option<usize>,
    /// Of the loops around, how many, counted from outside, have certainly passed a safepoint since their header.
    pub polled: u32,
    /// Likewise, since whose header the original has certainly gone on.
    pub moved: u32,
}

impl State {
    fn all(&self) -> impl Iterator<Item = Value> {
        self.original.all().chain(self.rewritten.all())
    }

    /// Whether both stand at the same place with the same number of operands.
    pub fn fits(&self, other: &Self) -> bool {
        self.at == other.at
            && self.original.stack.len() == other.original.stack.len()
            && self.rewritten.stack.len() == other.rewritten.stack.len()
    }

    /// Keeps of what is known what `other`, which must fit, knows as well.
    pub fn meet(&mut self, other: &Self, values: &mut Values) {
        let mut pairs: HashMap<(Value, Value), Value> = HashMap::new();
        let own = self.original.all_mut().chain(self.rewritten.all_mut());
        for (value, theirs) in own.zip(other.all()) {
            if *value != theirs {
                *value = *pairs
                    .entry((*value, theirs))
                    .or_insert_with(|| values.fresh());
            }
        }
        // What has to be tested on one way is tested on all.
        self.unchecked = self.unchecked.or(other.unchecked);
        self.polled = self.polled.min(other.polled);
        self.moved = self.moved.min(other.moved);
    }

    /// Whether all that this state, which must fit, says of equal values and constants is so in `other`.
    pub fn holds_in(&self, other: &Self) -> bool {
        let mut theirs: HashMap<Value, Value> = HashMap::new();
        self.polled <= other.polled
            && self.moved <= other.moved
            && (self.unchecked.is_some() || other.unchecked.is_none())
            && self.all().zip(other.all()).all(|(value, there)| {
                *theirs.entry(value).or_insert(there) == there
                    && (value.known().is_none() || value == there)
            })
    }
}
