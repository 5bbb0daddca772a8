//! Writes the body of one function anew, with safepoints; see the crate's documentation for what is inserted.
//!
//! Instructions are copied byte for byte except where an index or a label changes. Beside them goes a symbolic operand
//! stack: an operand is either *stacked*, on the real operand stack, or *parked* in a local of its own. At a safepoint
//! everything is parked, so that the values can be stored and, in a clone, be there without being computed. An operand
//! that was parked goes back onto the real stack when an instruction needs it. Parking costs nothing in compiled code,
//! where locals are values like any other.
//!
//! Invariants, which [`wasmparser`]'s validator checks in lockstep: the symbolic stack is as high as the validator's;
//! stacked operands lie on the real stack in the order of the symbolic one; at the start of a control instruction that
//! holds safepoints everything around it is parked, and its parameters with it.

mod control;
mod dispatch;
mod locals;
mod operators;
mod pads;
mod peel;
mod reach;
mod sites;
mod unroll;

use crate::analysis::Analysis;
use crate::error::{Error, Result};
use crate::helpers;
use crate::module::Module;
use crate::plan::Plan;
use crate::points::Point;
use crate::staging::{Staged, Staging};
use crate::types::{self, TypeSpace, ValueClass};
use crate::versions::Versions;
use control::Control;
use dispatch::Targets;
pub(crate) use dispatch::load_value;
use locals::Locals;
pub(crate) use operators::main_function;
use pads::Pads;
use std::collections::HashMap;
use wasm_encoder as enc;
use wasmparser::{FuncValidator, Operator, OperatorsReader, ValidatorResources};

/// The most bytes that a function body may have (a limit of implementations, wasmtime's among them).
const MAX_BODY_BYTES: usize = 7_654_321;

/// Indices of the module under construction that inserted code refers to.
pub(crate) struct Surroundings<'m, 'a> {
    pub module: &'m Module<'a>,
    pub plan: &'m Plan,
    pub types: &'m TypeSpace,
    /// The control memory.
    pub control_memory: u32,
    /// The same bytes once more, see [`crate::control`].
    pub request_memory: u32,
    /// The function that cold paths call, see [`crate::helpers`].
    pub safepoint: u32,
    /// With what values are staged, unless the module cannot.
    pub staging: Option<Staging>,
    /// Functions that save a function, external or exception reference.
    pub save_reference: [Option<u32>; 3],
    /// Tables of saved function, external and exception references.
    pub saved_references: [Option<u32>; 3],
    /// For each function type to which some function returns a reference that excludes null, a function of it.
    pub dummies: HashMap<u32, u32>,
    pub kind: Kind,
}

/// Which module the code is for.
pub(crate) enum Kind {
    /// The rewritten module itself.
    Main,
    /// A module of clones, which imports what it uses from the rewritten module.
    Clones(CloneIndices),
}

/// Indices that only a module of clones has.
pub(crate) struct CloneIndices {
    /// Import index of each function of the rewritten module that clones call.
    pub functions: HashMap<u32, u32>,
    /// Table of referenced functions, and the place of each in it.
    pub referenced_table: u32,
    pub referenced: HashMap<u32, u32>,
    /// Helpers that stand for instructions on segments.
    pub segments: HashMap<SegmentOperation, u32>,
    /// The table of clones.
    pub clones: u32,
}

/// An instruction on a segment, which only the module that has the segment can execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum SegmentOperation {
    MemoryInit { memory: u32, segment: u32 },
    TableInit { table: u32, segment: u32 },
    DataDrop { segment: u32 },
    ElementDrop { segment: u32 },
}

impl SegmentOperation {
    /// The operation that `operator` is, if it is one.
    pub fn of(operator: &Operator<'_>) -> Option<Self> {
        Some(match *operator {
            Operator::MemoryInit { data_index, mem } => Self::MemoryInit {
                memory: mem,
                segment: data_index,
            },
            Operator::TableInit { elem_index, table } => Self::TableInit {
                table,
                segment: elem_index,
            },
            Operator::DataDrop { data_index } => Self::DataDrop {
                segment: data_index,
            },
            Operator::ElemDrop { elem_index } => Self::ElementDrop {
                segment: elem_index,
            },
            _ => return None,
        })
    }

    /// The operation as numbers: kind, memory or table, segment.
    pub fn to_words(self) -> [u32; 3] {
        match self {
            Self::MemoryInit { memory, segment } => [0, memory, segment],
            Self::TableInit { table, segment } => [1, table, segment],
            Self::DataDrop { segment } => [2, 0, segment],
            Self::ElementDrop { segment } => [3, 0, segment],
        }
    }

    /// The operation from its numbers; none if `module` has no such thing.
    pub fn from_words(module: &Module<'_>, [kind, container, segment]: [u32; 3]) -> Option<Self> {
        let (containers, segments) = match kind {
            0 => (module.memories.len(), module.data.len()),
            1 => (module.tables.len(), module.elements.len()),
            2 => (1, module.data.len()),
            3 => (1, module.elements.len()),
            _ => return None,
        };
        if container as usize >= containers || segment as usize >= segments {
            return None;
        }
        Some(match kind {
            0 => Self::MemoryInit {
                memory: container,
                segment,
            },
            1 => Self::TableInit {
                table: container,
                segment,
            },
            2 => Self::DataDrop { segment },
            _ => Self::ElementDrop { segment },
        })
    }
}

/// An operand of the symbolic stack.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Operand {
    Stacked,
    /// In a local; `non_null` if its type excludes null, which that of the local does not.
    Parked {
        local: u32,
        non_null: bool,
    },
}

/// A function body, ready for the code section.
pub(crate) struct Body {
    /// Locals and instructions, without the size that stands before them.
    pub bytes: Vec<u8>,
    /// Which way conditional branches go: offset in `bytes`, and whether the condition is likely true.
    pub hints: Vec<(u32, bool)>,
    /// So many values of its frames are staged, at most.
    pub staged: Staged,
}

/// Rewrites defined function `function` for the main module.
pub(crate) fn rewrite(surroundings: &Surroundings<'_, '_>, function: u32) -> Result<Body> {
    let analysis = Analysis::new(surroundings.module, surroundings.plan, function, &[])?;
    Emitter::new(surroundings, function, analysis, Targets::none())?.run()
}

/// Writes the clone of defined function `function` that can be entered at `points`, by their index.
pub(crate) fn clone(
    surroundings: &Surroundings<'_, '_>,
    function: u32,
    points: &[Point],
) -> Result<Body> {
    let analysis = Analysis::new(surroundings.module, surroundings.plan, function, points)?;
    let targets = Targets::new(&analysis, function, points)?;
    Emitter::new(surroundings, function, analysis, targets)?.run()
}

/// A validator for the body of a function, which has seen its locals.
fn new_validator(module: &Module<'_>, function: u32) -> Result<FuncValidator<ValidatorResources>> {
    let mut validator = module
        .function_validator(function)?
        .into_validator(Default::default());
    let mut locals = module.body(function).get_locals_reader()?;
    for _ in 0..locals.get_count() {
        let offset = locals.original_position();
        let (count, ty) = locals.read()?;
        validator.define_locals(offset, count, ty)?;
    }
    Ok(validator)
}

struct Emitter<'e, 'm, 'a> {
    around: &'e Surroundings<'m, 'a>,
    module: &'m Module<'a>,
    function: u32,
    analysis: Analysis,
    validator: FuncValidator<ValidatorResources>,
    locals: Locals,
    results: Vec<enc::ValType>,
    code: Vec<u8>,
    hints: Vec<(u32, bool)>,
    stack: Vec<Operand>,
    frames: Vec<Control>,
    /// Control instructions open in the code written.
    nest: u32,
    next_construct: usize,
    /// Control instructions open that began in dead code.
    dead_depth: u32,
    targets: Targets,
    pads: Pads,
    versions: Versions,
    /// In a clone: whether what is written next can be reached from behind a target; see `reach.rs`.
    behind_target: bool,
    /// In a clone: one more than the offset of the last instruction so far before which it can be entered.
    entered: u32,
    /// In a clone: the loops that are written twice, see `peel.rs`; how many have been so far; the one whose second copy
    /// comes next; and the instructions from there on, which the emitter goes back to.
    peeled: Vec<usize>,
    copies: u32,
    second_copy: Option<usize>,
    rewound: Option<OperatorsReader<'a>>,
}

impl<'e, 'm, 'a> Emitter<'e, 'm, 'a> {
    fn new(
        around: &'e Surroundings<'m, 'a>,
        function: u32,
        analysis: Analysis,
        targets: Targets,
    ) -> Result<Self> {
        let module = around.module;
        let ty = module.function_type(function);
        let as_clone = matches!(around.kind, Kind::Clones(_));
        let versions = Versions::new(&analysis.constructs, &analysis.writes);
        let validator = new_validator(module, function)?;
        let locals = Locals::new(module, function, as_clone)?;
        let mut emitter = Self {
            around,
            module,
            function,
            analysis,
            validator,
            locals,
            results: ty
                .results()
                .iter()
                .map(|ty| types::encode(module, *ty))
                .collect(),
            code: Vec::new(),
            hints: Vec::new(),
            stack: Vec::new(),
            frames: Vec::new(),
            nest: 0,
            next_construct: 0,
            dead_depth: 0,
            targets,
            pads: Pads::default(),
            versions,
            behind_target: false,
            entered: 0,
            peeled: Vec::new(),
            copies: 0,
            second_copy: None,
            rewound: None,
        };
        emitter.choose_peeled();
        Ok(emitter)
    }

    fn run(mut self) -> Result<Body> {
        let body = self.module.body(self.function);
        let mut operators = body.get_operators_reader()?;
        self.open_function(
            body.range().start as u32,
            operators.original_position() as u32,
        );
        while !operators.eof() {
            let (operator, offset) = operators.read_with_offset()?;
            let end = operators.original_position();
            self.visit(&operator, offset, end)?;
            if let Some(again) = self.rewound.take() {
                operators = again;
            }
        }
        self.finish()
    }

    /// Completes the code with its pads, and puts the prologue of a clone and the declaration of locals before it.
    fn finish(mut self) -> Result<Body> {
        let staged = self.finish_pads();
        let code = std::mem::take(&mut self.code);
        self.emit_prologue()?;
        let prologue = std::mem::take(&mut self.code);
        let mut bytes = Vec::with_capacity(code.len() + prologue.len() + 16);
        self.locals
            .declare(&mut bytes)
            .ok_or_else(|| self.too_large("locals"))?;
        bytes.extend_from_slice(&prologue);
        let shift = bytes.len() as u32;
        bytes.extend_from_slice(&code);
        if bytes.len() > MAX_BODY_BYTES {
            return Err(self.too_large("bytes of code"));
        }
        let hints = self
            .hints
            .iter()
            .map(|(offset, likely)| (offset + shift, *likely))
            .collect();
        Ok(Body {
            bytes,
            hints,
            staged,
        })
    }

    fn too_large(&self, what: &str) -> Error {
        Error::Unsupported {
            feature: format!(
                "a function (index {}) that needs too many {what} once rewritten",
                self.function
            ),
        }
    }

    fn visit(&mut self, operator: &Operator<'a>, offset: usize, end: usize) -> Result<()> {
        // The validator takes what is nested in dead code for live again.
        let unreachable = self.dead_depth > 0
            || self
                .validator
                .get_control_frame(0)
                .is_some_and(|frame| frame.unreachable);
        if unreachable && !self.visit_dead(operator) {
            self.validator.op(offset, operator)?;
            return Ok(());
        }
        if !unreachable {
            self.arrive(offset as u32);
            self.pass_targets(offset as u32);
            self.follow_branches(operator);
        }
        self.emit(operator, offset, end, !unreachable)
    }

    /// In dead code only the structure counts. Returns whether `operator` ends it.
    fn visit_dead(&mut self, operator: &Operator<'a>) -> bool {
        match operator {
            Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::TryTable { .. } => {
                self.dead_depth += 1;
                false
            }
            Operator::Else => self.dead_depth == 0,
            Operator::End if self.dead_depth == 0 => true,
            Operator::End => {
                self.dead_depth -= 1;
                false
            }
            _ => false,
        }
    }

    /// Copies the instruction as it stands.
    fn copy(&mut self, offset: usize, end: usize) {
        self.code.extend_from_slice(&self.module.bytes[offset..end]);
    }

    /// Encodes inserted instructions.
    fn sink(&mut self) -> enc::InstructionSink<'_> {
        enc::InstructionSink::new(&mut self.code)
    }

    /// Says which way the conditional branch that is written next goes.
    fn hint(&mut self, likely: bool) {
        self.hints.push((self.code.len() as u32, likely));
    }

    /// Steps the validator over the instruction and adjusts the symbolic stack.
    fn advance(
        &mut self,
        operator: &Operator<'a>,
        offset: usize,
        pops: u32,
        pushes: u32,
    ) -> Result<()> {
        self.validator.op(offset, operator)?;
        self.pop(pops as usize);
        self.push_stacked(pushes as usize);
        Ok(())
    }

    fn pop(&mut self, count: usize) {
        self.stack.truncate(self.stack.len() - count);
    }

    fn push_stacked(&mut self, count: usize) {
        self.stack
            .resize(self.stack.len() + count, Operand::Stacked);
    }

    /// The type of the operand at `height`, before the current instruction.
    fn operand_type(&self, height: usize) -> enc::ValType {
        let depth = self.stack.len() - 1 - height;
        let ty = self.validator.get_operand_type(depth).flatten();
        // Operands of unknown type occur in dead code only, which is not emitted.
        ty.map_or(enc::ValType::I32, |ty| types::encode(self.module, ty))
    }

    /// Brings the top `count` operands onto the real stack.
    fn need(&mut self, count: usize) {
        let from = self.stack.len() - count;
        let Some(parked) =
            (from..self.stack.len()).find(|height| self.stack[*height] != Operand::Stacked)
        else {
            return;
        };
        self.park_from(parked);
        for height in parked..self.stack.len() {
            self.unpark(height);
        }
    }

    /// Parks every operand.
    fn park_all(&mut self) {
        self.park_from(0);
    }

    /// Parks the operands from `height` upwards. Stacked ones below `height` must not lie above parked ones' places
    /// on the real stack, which holds as only the top of the stack is ever unparked.
    fn park_from(&mut self, height: usize) {
        for height in (height..self.stack.len()).rev() {
            if self.stack[height] == Operand::Stacked {
                let ty = self.operand_type(height);
                self.park_top_as(height, ty);
            }
        }
    }

    /// Takes the value on top of the real stack, which is the operand at `height`, into its local.
    fn park_top_as(&mut self, height: usize, ty: enc::ValType) {
        let local = self.locals.parking(height, ty);
        self.sink().local_set(local);
        self.locals.park(local, self.code.len());
        self.stack[height] = Operand::Parked {
            local,
            non_null: types::is_non_null(ty),
        };
    }

    fn unpark(&mut self, height: usize) {
        if let Operand::Parked { local, non_null } = self.stack[height] {
            self.get_parked(local, non_null);
            self.stack[height] = Operand::Stacked;
        }
    }

    fn get_parked(&mut self, local: u32, non_null: bool) {
        let mut sink = self.sink();
        sink.local_get(local);
        if non_null {
            sink.ref_as_non_null();
        }
    }

    /// The local and class of every parked operand below `height`.
    fn parked_below(&self, height: usize) -> Vec<(u32, ValueClass)> {
        let parked = self.stack[..height]
            .iter()
            .filter_map(|operand| match operand {
                Operand::Parked { local, .. } => Some((*local, self.locals.class(*local))),
                Operand::Stacked => None,
            });
        parked.collect()
    }

    fn memory(&self, offset: u32) -> enc::MemArg {
        helpers::at(self.around.control_memory, offset)
    }
}
