//! The control memory: the linear memory that a rewritten module shares with its host.
//!
//! It is the last memory of the rewritten module and belongs to the host. Its first bytes are words at fixed
//! addresses, then one byte per segment that records whether the program dropped it, then the frame buffer.
//!
//! ```text
//! 0    u32  request word: what is wanted of the program (0: nothing)
//! 4    u32  save pointer: address at which the next frame is written
//! 8    u32  restore pointer: address of the next frame to restore
//! 12   u32  number of function references saved
//! 16   u32  number of external references saved
//! 20   u32  number of exception references saved
//! 24   u64  safepoints still to pass before the host is asked (counts while `COUNTING` is set)
//! 32   u32  fence: loops that store nothing store here, so that compilers load the request word on every turn
//! 36   u32  not zero while a table of saved references grows
//! 64        dropped flags: a byte per data segment, then a byte per element segment
//! ...       frames, from the next multiple of 64
//! ```
//!
//! The *request memory*, one index further, is the same bytes once more: the tests of the request word read it there.
//! A compiler keeps the address of a memory in a register where the memory is much used, and the stores into frames,
//! which hardly ever run, would otherwise make it believe that of the control memory: measured, QuickJS then takes up to
//! three times as long.

/// Address of the request word: the OR of [`REQUEST`], [`COUNTING`], [`CALL_CUT_SHORT`] and [`UNWINDING`].
pub const REQUEST_WORD: u32 = 0;
/// Address of the save pointer.
pub const SAVE_POINTER: u32 = 4;
/// Address of the restore pointer.
pub const RESTORE_POINTER: u32 = 8;
/// Address of the number of function references saved in the table of saved function references.
pub const SAVED_FUNCTIONS: u32 = 12;
/// Address of the number of external references saved.
pub const SAVED_EXTERNS: u32 = 16;
/// Address of the number of exception references saved.
pub const SAVED_EXCEPTIONS: u32 = 20;
/// Address of the 64-bit safepoint counter.
pub const COUNTER: u32 = 24;
/// Address of the word that loops store to which store nothing else.
pub const FENCE: u32 = 32;
/// Address of the word that is not zero while a table of saved references grows, which no limit of the program concerns.
pub const GROWING: u32 = 36;
/// Address of the first dropped flag.
const DROPPED: u32 = 64;

/// Bit of the request word: the next safepoint that can ask the host does so.
pub const REQUEST: u32 = 1;
/// Bit of the request word: every safepoint decrements [`COUNTER`] and asks the host when it reaches zero. For modules
/// that are rewritten so that safepoints can be counted.
pub const COUNTING: u32 = 2;
/// Bit of the request word: the call of the host that returns with it has not taken effect and is to be made again.
pub const CALL_CUT_SHORT: u32 = 4;
/// Bit of the request word: the call stack shall be unwound into frames, which begins at the next safepoint.
pub const UNWINDING: u32 = 1 << 31;

/// Size of the control memory in WebAssembly pages of 64 KiB. It is address space: untouched pages cost nothing.
pub const CONTROL_PAGES: u64 = 16384;
/// Size of the control memory in bytes.
pub const CONTROL_BYTES: u32 = (CONTROL_PAGES * 65536) as u32;

/// Where in a saved frame its function stands, and behind that how many of its values were staged, see [`crate::Staged`].
pub const SAVED_FUNCTION: u32 = 0;
/// The second of these.
pub const SAVED_STAGED: u32 = 4;
/// Where in a saved frame the offset of its site stands, and behind that its size in bytes.
pub const SAVED_SITE: u32 = 8;
/// The second of these.
pub const SAVED_SIZE: u32 = 12;
/// Size in bytes of what stands before the values of a saved frame.
pub const SAVED_HEADER_BYTES: u32 = 16;
/// Size in bytes of what stands before the values of a frame to restore: clone, entry, frame size, zero.
pub const RESTORE_HEADER_BYTES: u32 = 16;

/// Where the parts of a module's control memory lie whose place depends on the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlLayout {
    data_segments: u32,
    element_segments: u32,
}

impl ControlLayout {
    /// The layout for a module with so many data and element segments.
    pub fn new(data_segments: u32, element_segments: u32) -> Self {
        Self {
            data_segments,
            element_segments,
        }
    }

    /// Address of the byte that is 1 when the program has dropped data segment `segment`.
    pub fn data_dropped(&self, segment: u32) -> u32 {
        DROPPED + segment
    }

    /// Address of the byte that is 1 when the program has dropped element segment `segment`.
    pub fn element_dropped(&self, segment: u32) -> u32 {
        DROPPED + self.data_segments + segment
    }

    /// Address of the first frame.
    pub fn frames(&self) -> u32 {
        (DROPPED + self.data_segments + self.element_segments).next_multiple_of(64)
    }
}
