//! The code of one function: its instructions, what they do to the operand stack, and where its labels are.

use crate::error::Result;
use crate::module::Module;
use std::collections::HashMap;
use wasmparser::{BlockType, Catch, Operator, ValType};

/// What a construct is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Function,
    Block,
    Loop,
    If,
    Try,
}

/// A structured control instruction, or the function itself, which is construct 0.
#[derive(Clone, Debug)]
pub(crate) struct Construct {
    pub kind: Kind,
    /// Indices of its instructions: the one that opens it, `else`, `end`.
    pub start: usize,
    pub middle: Option<usize>,
    pub end: usize,
    /// Operands that lie below its parameters.
    pub height: usize,
    pub params: usize,
    pub results: usize,
    /// The construct around it; of the function itself, this one.
    pub parent: usize,
    /// How many loops are open within, itself included.
    pub loops: u32,
}

/// Where a branch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Jump {
    /// Index of the instruction that is executed next.
    pub to: usize,
    /// Operands that stay, and how many from the top go on top of these.
    pub height: usize,
    pub arity: usize,
}

/// Who catches an exception, in the order in which they are asked.
pub(crate) struct Handler {
    /// The tag, or none for all.
    pub tag: Option<u32>,
    /// Whether the handler gets a reference to the exception.
    pub reference: bool,
    pub jump: Jump,
}

/// A function's code. Instructions are named by their index.
pub(crate) struct Code<'a> {
    pub ops: Vec<Operator<'a>>,
    /// Offset of each instruction in the module.
    pub offsets: Vec<u32>,
    /// How many operands each pops and pushes; for branches this is not used.
    pub effects: Vec<(usize, usize)>,
    /// The construct in which each instruction stands.
    pub within: Vec<usize>,
    pub constructs: Vec<Construct>,
    /// The construct that an instruction opens.
    pub opened: HashMap<usize, usize>,
    /// Types of locals, parameters first.
    pub locals: Vec<ValType>,
    pub params: usize,
    /// Types of the operands before each instruction at the offsets asked for, and behind each call and header of a loop.
    pub stacks: HashMap<usize, Vec<ValType>>,
    /// Offset of the body.
    pub start: u32,
}

impl<'a> Code<'a> {
    /// Decodes and validates the body of defined function `function`; `wanted` are offsets at which the types of operands are kept.
    pub fn new(module: &Module<'a>, function: u32, wanted: &[u32]) -> Result<Option<Self>> {
        let (Some(body), Some(to_validate), Some(ty)) = (
            module.body(function),
            module.to_validate(function),
            module.signature(function),
        ) else {
            return Ok(None);
        };
        let mut validator = to_validate.into_validator(Default::default());
        let mut code = Self {
            ops: Vec::new(),
            offsets: Vec::new(),
            effects: Vec::new(),
            within: Vec::new(),
            constructs: vec![Construct {
                kind: Kind::Function,
                start: 0,
                middle: None,
                end: 0,
                height: 0,
                params: 0,
                results: ty.results().len(),
                parent: 0,
                loops: 0,
            }],
            opened: HashMap::new(),
            locals: ty.params().to_vec(),
            params: ty.params().len(),
            stacks: HashMap::new(),
            start: body.range().start as u32,
        };
        let mut locals = body.get_locals_reader()?;
        for _ in 0..locals.get_count() {
            let offset = locals.original_position();
            let (count, ty) = locals.read()?;
            validator.define_locals(offset, count, ty)?;
            code.locals.extend(std::iter::repeat_n(ty, count as usize));
        }
        let mut operators = body.get_operators_reader()?;
        let mut current = 0;
        while !operators.eof() {
            let (operator, offset) = operators.read_with_offset()?;
            let effect = operator.operator_arity(&validator).unwrap_or((0, 0));
            let height = validator.operand_stack_height() as usize;
            let is_behind_safepoint = matches!(
                code.ops.last(),
                Some(
                    Operator::Call { .. }
                        | Operator::CallIndirect { .. }
                        | Operator::CallRef { .. }
                        | Operator::Loop { .. }
                )
            );
            if is_behind_safepoint || wanted.contains(&(offset as u32)) {
                let types = (0..height).rev();
                let types = types.map(|depth| validator.get_operand_type(depth).flatten());
                code.stacks.insert(
                    code.ops.len(),
                    types.map(|ty| ty.unwrap_or(ValType::I32)).collect(),
                );
            }
            current = code.place(module, &operator, current, height);
            validator.op(offset, &operator)?;
            code.ops.push(operator);
            code.offsets.push(offset as u32);
            code.effects.push((effect.0 as usize, effect.1 as usize));
        }
        Ok(Some(code))
    }

    /// Notes in which construct an instruction stands; returns the one in which the next does.
    fn place(
        &mut self,
        module: &Module<'a>,
        operator: &Operator<'a>,
        current: usize,
        height: usize,
    ) -> usize {
        let index = self.within.len();
        self.within.push(current);
        let (kind, ty, tests) = match operator {
            Operator::Block { blockty } => (Kind::Block, *blockty, 0),
            Operator::Loop { blockty } => (Kind::Loop, *blockty, 0),
            Operator::If { blockty } => (Kind::If, *blockty, 1),
            Operator::TryTable { try_table } => (Kind::Try, try_table.ty, 0),
            Operator::Else => {
                self.constructs[current].middle = Some(index);
                return current;
            }
            Operator::End => {
                self.constructs[current].end = index;
                return self.constructs[current].parent;
            }
            _ => return current,
        };
        let (params, results) = match ty {
            BlockType::Empty => (0, 0),
            BlockType::Type(_) => (0, 1),
            BlockType::FuncType(ty) => module
                .function_type(ty)
                .map_or((0, 0), |ty| (ty.params().len(), ty.results().len())),
        };
        let loops = self.constructs[current].loops + u32::from(kind == Kind::Loop);
        self.opened.insert(index, self.constructs.len());
        self.constructs.push(Construct {
            kind,
            start: index,
            middle: None,
            end: 0,
            // In dead code there may be fewer operands than parameters.
            height: height.saturating_sub(params + tests),
            params,
            results,
            parent: current,
            loops,
        });
        self.constructs.len() - 1
    }

    /// The construct whose label is `depth` levels out from `construct`.
    fn outwards(&self, mut construct: usize, depth: u32) -> usize {
        for _ in 0..depth {
            construct = self.constructs[construct].parent;
        }
        construct
    }

    /// Where a branch to the label of a construct goes.
    fn label(&self, construct: usize) -> Jump {
        let construct = &self.constructs[construct];
        let (to, arity) = match construct.kind {
            Kind::Loop => (construct.start + 1, construct.params),
            // The last `end` is where a function returns.
            Kind::Function => (construct.end, construct.results),
            _ => (construct.end + 1, construct.results),
        };
        Jump {
            to,
            height: construct.height,
            arity,
        }
    }

    /// Where a branch of instruction `index` with a label `depth` levels out goes.
    pub fn branch(&self, index: usize, depth: u32) -> Jump {
        self.label(self.outwards(self.within[index], depth))
    }

    /// Where the second arm of the `if` at `index` begins, or what follows it when it has none.
    pub fn alternative(&self, index: usize) -> usize {
        let construct = &self.constructs[self.opened[&index]];
        construct.middle.unwrap_or(construct.end) + 1
    }

    /// Whether the instruction at `index` is the function's last `end`.
    pub fn is_last(&self, index: usize) -> bool {
        index + 1 == self.ops.len()
    }

    /// The handlers around an instruction, the first that is asked first. Clauses behind one that catches everything count as
    /// well, which is how live locals are defined; those of constructs further out do not.
    pub fn handlers(&self, index: usize) -> Vec<Handler> {
        let mut handlers = Vec::new();
        let mut current = self.within[index];
        while current != 0 {
            let construct = &self.constructs[current];
            if let Operator::TryTable { try_table } = &self.ops[construct.start]
                && construct.kind == Kind::Try
            {
                for catch in &try_table.catches {
                    let (tag, reference, label) = match *catch {
                        Catch::One { tag, label } => (Some(tag), false, label),
                        Catch::OneRef { tag, label } => (Some(tag), true, label),
                        Catch::All { label } => (None, false, label),
                        Catch::AllRef { label } => (None, true, label),
                    };
                    let jump = self.label(self.outwards(construct.parent, label));
                    handlers.push(Handler {
                        tag,
                        reference,
                        jump,
                    });
                }
                if handlers.iter().any(|handler| handler.tag.is_none()) {
                    return handlers;
                }
            }
            current = construct.parent;
        }
        handlers
    }

    /// The instruction at an offset of the module.
    pub fn at_offset(&self, offset: u32) -> Option<usize> {
        self.offsets.binary_search(&offset).ok()
    }
}
