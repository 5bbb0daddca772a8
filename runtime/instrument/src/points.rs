//! Where in a function an activation can stand still, in terms of the original module.

use std::fmt;

/// A place of a frame within its function. Offsets are in bytes from the start of the original module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// The call at this offset is in progress; its arguments are gone.
    Calling(u32),
    /// The instruction at this offset is executed next.
    Next(u32),
}

impl Point {
    /// The offset of the instruction named.
    pub fn offset(self) -> u32 {
        match self {
            Self::Calling(offset) | Self::Next(offset) => offset,
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calling(offset) => write!(formatter, "call at offset {offset:#x}"),
            Self::Next(offset) => write!(formatter, "instruction at offset {offset:#x}"),
        }
    }
}
