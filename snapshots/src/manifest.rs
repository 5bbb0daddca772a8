//! The state of a stopped program, and its one encoding in bytes.
//!
//! Indices of functions, memories, globals, tables, tags and segments are those of the original module, imports
//! first, as in the WebAssembly specification.

mod decode;
mod encode;

use std::collections::BTreeMap;

use crate::id::{ImageId, MemoryHash, ModuleHash};

/// The first bytes of every manifest.
pub(crate) const MAGIC: [u8; 8] = *b"WSNAPIMG";
/// The version of the manifest format that this build writes and reads.
pub const FORMAT_VERSION: u32 = 1;
/// A memory has at most so many bytes.
pub const MEMORY_LEN_MAX: u64 = 1 << 48;
/// A table has at most so many elements.
pub const TABLE_LEN_MAX: u64 = 10_000_000;

/// Everything that a stopped program consists of.
///
/// All lists must be in the order that their fields state. [`Manifest::encode`] writes them as they are;
/// [`Manifest::decode`] and [`crate::Store::publish`] refuse another order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The original module.
    pub module: ModuleHash,
    /// Whether the program runs on fixed clocks and seeds, compiled so that every CPU computes the same bits. It
    /// has to go on as it started.
    pub deterministic: bool,
    /// What the host was running.
    pub invocation: Invocation,
    /// All memories, by ascending index.
    pub memories: Vec<MemoryState>,
    /// The mutable globals, by ascending index.
    pub globals: Vec<GlobalState>,
    /// The tables that can have changed since the module was instantiated, by ascending index.
    pub tables: Vec<TableState>,
    /// The data segments that the program dropped, ascending.
    pub dropped_data: Vec<u32>,
    /// The element segments that the program dropped, ascending.
    pub dropped_elements: Vec<u32>,
    /// The exceptions that [`Value::ExnRef`] points at.
    pub exceptions: Vec<Exception>,
    /// The call stack, outermost frame first.
    pub frames: Vec<Frame>,
    /// Sections of host state, by name. The bytes belong to the part of the host that the name stands for.
    pub host: BTreeMap<String, Vec<u8>>,
}

/// The size and content of a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryState {
    /// The current size in pages of the memory's own page size.
    pub pages: u64,
    /// The page size as a power of two: 16, or 0 for pages of one byte.
    pub page_size_log2: u8,
    /// The content.
    pub content: MemoryHash,
}

/// What the host was running when the program stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Which part of it was running.
    pub phase: Phase,
    /// The name of the exported function that the host called, or will call next.
    pub export: String,
    /// The arguments of that call.
    pub arguments: Vec<Value>,
}

/// Which part of an invocation was running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The module's start function; the export comes after it.
    Start,
    /// The export.
    Export,
}

/// A WebAssembly value. Floats are kept as bits, so that no NaN changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// An `i32`.
    I32(i32),
    /// An `i64`.
    I64(i64),
    /// The bits of an `f32`.
    F32(u32),
    /// The bits of an `f64`.
    F64(u64),
    /// A `v128`; the lane of lowest index is in the least significant bits.
    V128(u128),
    /// A `funcref`: null, or a function of the original module.
    FuncRef(Option<u32>),
    /// A null `externref`. Others cannot be stored.
    ExternRefNull,
    /// An `exnref`: null, or an index into [`Manifest::exceptions`].
    ExnRef(Option<u32>),
}

/// The value of a mutable global.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalState {
    /// Which global.
    pub index: u32,
    /// Its value.
    pub value: Value,
}

/// The content of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableState {
    /// Which table.
    pub index: u32,
    /// All its elements.
    pub elements: Elements,
}

/// A number of equal neighbours in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How many.
    pub length: u64,
    /// Their value.
    pub value: Value,
}

/// The elements of a table in order, kept as runs: tables are large and repetitive.
///
/// ```
/// use wsnap_snapshots::{Elements, Value};
///
/// let elements: Elements = [Value::FuncRef(None), Value::FuncRef(None), Value::FuncRef(Some(7))].into_iter().collect();
/// assert_eq!(elements.len(), 3);
/// assert_eq!(elements.runs().len(), 2);
/// assert_eq!(elements.iter().last(), Some(Value::FuncRef(Some(7))));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elements {
    /// Invariant: no run is empty, and neighbouring runs have different values. So equal elements are equal runs.
    runs: Vec<Run>,
    /// Invariant: the sum of the runs' lengths.
    len: u64,
}

/// An exception object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its tag.
    pub tag: u32,
    /// Its payload.
    pub fields: Vec<Value>,
}

/// An activation of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which function.
    pub function: u32,
    /// Where in the bytes of the original module the instruction starts that [`FrameState`] speaks of; 0 in a
    /// [`FrameState::HostCall`].
    pub offset: u32,
    /// How far that instruction has come.
    pub state: FrameState,
    /// The live locals (parameters are the first locals), by ascending index.
    pub locals: Vec<(u32, Value)>,
    /// The operand stack, bottom first.
    pub operands: Vec<Value>,
}

/// How far a frame has come with the instruction at its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameState {
    /// The call is in progress; its arguments have left the operand stack.
    Calling,
    /// The instruction is the next to be executed.
    Next,
    /// The function is an import, about to be called again with the operands as its arguments.
    HostCall,
}

impl Manifest {
    /// The manifest of a program that has no state yet.
    pub fn new(module: ModuleHash, invocation: Invocation) -> Self {
        Self {
            module,
            deterministic: false,
            invocation,
            memories: Vec::new(),
            globals: Vec::new(),
            tables: Vec::new(),
            dropped_data: Vec::new(),
            dropped_elements: Vec::new(),
            exceptions: Vec::new(),
            frames: Vec::new(),
            host: BTreeMap::new(),
        }
    }

    /// The id of the image that this is the manifest of.
    pub fn id(&self) -> ImageId {
        ImageId::of(&self.encode())
    }
}

impl Invocation {
    /// A call without arguments of the exported function `name`, its start function already run.
    pub fn export(name: &str) -> Self {
        Self {
            phase: Phase::Export,
            export: name.to_owned(),
            arguments: Vec::new(),
        }
    }
}

impl MemoryState {
    /// A memory of `pages` pages of `1 << page_size_log2` bytes whose content is not hashed yet.
    pub fn draft(pages: u64, page_size_log2: u8) -> Self {
        Self {
            pages,
            page_size_log2,
            content: MemoryHash::default(),
        }
    }

    /// The size in bytes, or `None` when it is above [`MEMORY_LEN_MAX`] or the page size isn't one of WebAssembly's.
    pub fn byte_len(&self) -> Option<u64> {
        let page_size = match self.page_size_log2 {
            0 | 16 => 1 << self.page_size_log2,
            _ => return None,
        };
        self.pages
            .checked_mul(page_size)
            .filter(|byte_len| *byte_len <= MEMORY_LEN_MAX)
    }
}

impl Elements {
    /// Appends `length` elements of one value.
    ///
    /// # Panics
    ///
    /// When the number of elements exceeds 64 bits.
    pub fn push_run(&mut self, length: u64, value: Value) {
        if length == 0 {
            return;
        }
        self.len = self
            .len
            .checked_add(length)
            .expect("a table's length fits in 64 bits");
        match self.runs.last_mut() {
            Some(last) if last.value == value => last.length += length,
            _ => self.runs.push(Run { length, value }),
        }
    }

    /// The number of elements.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements as runs that are not empty and whose neighbours differ.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The elements one by one.
    pub fn iter(&self) -> impl Iterator<Item = Value> + '_ {
        self.runs
            .iter()
            .flat_map(|run| (0..run.length).map(|_| run.value))
    }
}

impl Extend<Value> for Elements {
    fn extend<I: IntoIterator<Item = Value>>(&mut self, values: I) {
        values.into_iter().for_each(|value| self.push_run(1, value));
    }
}

impl FromIterator<Value> for Elements {
    fn from_iter<I: IntoIterator<Item = Value>>(values: I) -> Self {
        let mut elements = Self::default();
        elements.extend(values);
        elements
    }
}
