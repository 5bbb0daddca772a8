//! One pass over every function body: validates it and notes what decides how it must be rewritten.

use crate::emit::SegmentOperation;
use crate::error::{Error, Result};
use crate::module::Module;
use crate::types::{self, ValueClass};
use rayon::prelude::*;
use wasmparser::{BlockType, FuncValidatorAllocations, Operator, RefType, TryTable, ValType};

/// What the rewriter must know of a function before it looks at any other.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// Functions called directly, once per call instruction.
    pub callees: Vec<u32>,
    /// Functions called directly in tail position, once per call instruction.
    pub tail_callees: Vec<u32>,
    /// Functions called directly in a loop, each once.
    pub callees_in_loops: Vec<u32>,
    /// Functions whose reference is taken.
    pub referenced: Vec<u32>,
    /// Tables that an instruction can change.
    pub changed_tables: Vec<u32>,
    /// Instructions on segments, each once.
    pub segment_operations: Vec<SegmentOperation>,
    /// Whether there is a loop.
    pub loops: bool,
    /// Whether a function is called through a table or a reference.
    pub calls_indirectly: bool,
    /// Whether a function is called through a table or a reference in tail position.
    pub tail_calls_indirectly: bool,
    /// Whether exceptions can be caught.
    pub catches: bool,
    /// Whether an instruction names a data segment.
    pub names_data: bool,
    /// By [`ValueClass::saved_table`]: whether references of the kind occur, or exceptions, other than as what functions take and give.
    pub references: [bool; 3],
    /// Number of instructions.
    pub instructions: u32,
}

/// Validates all function bodies and summarises them, in the order of their indices.
pub(crate) fn scan(module: &Module<'_>) -> Result<Vec<Summary>> {
    let first = module.imported_functions;
    (0..module.bodies.len() as u32)
        .into_par_iter()
        .map_init(FuncValidatorAllocations::default, |allocations, defined| {
            scan_function(module, first + defined, allocations)
        })
        .collect()
}

fn scan_function(
    module: &Module<'_>,
    function: u32,
    allocations: &mut FuncValidatorAllocations,
) -> Result<Summary> {
    let body = module.body(function);
    let mut validator = module
        .function_validator(function)?
        .into_validator(std::mem::take(allocations));
    validator.validate(body)?;
    *allocations = validator.into_allocations();

    let mut summary = Summary::default();
    let mut reader = body.get_locals_reader()?;
    for _ in 0..reader.get_count() {
        let (_, ty) = reader.read()?;
        if types::is_collected(ty) {
            return Err(Error::collected());
        }
        summary.note_reference(ty);
    }
    let mut operators = body.get_operators_reader()?;
    let mut nest = LoopNest::default();
    while !operators.eof() {
        let operator = operators.read()?;
        if makes_collected(&operator) {
            return Err(Error::collected());
        }
        summary.note(&operator);
        if let Some(ty) = reference_brought(module, &operator) {
            summary.note_reference(ty);
        }
        nest.note(&operator);
        if let Operator::Call { function_index } = operator
            && nest.is_in_loop()
        {
            summary.callees_in_loops.push(function_index);
        }
    }
    summary.segment_operations.sort_unstable();
    summary.segment_operations.dedup();
    let lists = [
        &mut summary.callees_in_loops,
        &mut summary.referenced,
        &mut summary.changed_tables,
    ];
    for list in lists {
        list.sort_unstable();
        list.dedup();
    }
    Ok(summary)
}

impl Summary {
    fn note_reference(&mut self, ty: ValType) {
        if let ValType::Ref(_) = ty {
            self.references[ValueClass::of(ty).saved_table()] = true;
        }
    }

    fn note(&mut self, operator: &Operator<'_>) {
        self.instructions += 1;
        self.segment_operations
            .extend(SegmentOperation::of(operator));
        match *operator {
            Operator::Loop { .. } => self.loops = true,
            Operator::Call { function_index } => self.callees.push(function_index),
            Operator::ReturnCall { function_index } => self.tail_callees.push(function_index),
            Operator::CallIndirect { .. } | Operator::CallRef { .. } => {
                self.calls_indirectly = true
            }
            Operator::ReturnCallIndirect { .. } | Operator::ReturnCallRef { .. } => {
                self.tail_calls_indirectly = true
            }
            Operator::RefFunc { function_index } => self.referenced.push(function_index),
            Operator::TryTable { .. } => {
                self.catches = true;
                self.references[ValueClass::Exception.saved_table()] = true;
            }
            Operator::Throw { .. } | Operator::ThrowRef => {
                self.references[ValueClass::Exception.saved_table()] = true;
            }
            Operator::MemoryInit { .. }
            | Operator::DataDrop { .. }
            | Operator::ArrayNewData { .. }
            | Operator::ArrayInitData { .. } => self.names_data = true,
            Operator::TableSet { table }
            | Operator::TableFill { table }
            | Operator::TableGrow { table }
            | Operator::TableInit { table, .. } => self.changed_tables.push(table),
            Operator::TableCopy { dst_table, .. } => self.changed_tables.push(dst_table),
            _ => {}
        }
    }
}

/// The type of what the instruction gives, if that can be a reference which no other value of the function is and no call gave.
fn reference_brought(module: &Module<'_>, operator: &Operator<'_>) -> Option<ValType> {
    match *operator {
        Operator::RefNull { hty } => RefType::new(true, hty).map(ValType::Ref),
        Operator::RefFunc { .. } => Some(ValType::FUNCREF),
        Operator::TableGet { table } => {
            Some(ValType::Ref(module.tables[table as usize].element_type))
        }
        Operator::GlobalGet { global_index } => {
            Some(module.globals[global_index as usize].content_type)
        }
        // Behind a block that is never left there is code for a value that never is.
        _ => block_result(operator),
    }
}

/// The result that a control instruction says itself, not by a type of the module.
fn block_result(operator: &Operator<'_>) -> Option<ValType> {
    let (Operator::Block { blockty }
    | Operator::Loop { blockty }
    | Operator::If { blockty }
    | Operator::TryTable {
        try_table: TryTable { ty: blockty, .. },
    }) = operator
    else {
        return None;
    };
    match blockty {
        BlockType::Type(ty) => Some(*ty),
        BlockType::Empty | BlockType::FuncType(_) => None,
    }
}

/// Whether instructions stand in a loop.
#[derive(Default)]
struct LoopNest {
    /// The control instructions around that are no function: whether each is a loop.
    open: Vec<bool>,
    loops: u32,
}

impl LoopNest {
    fn note(&mut self, operator: &Operator<'_>) {
        match operator {
            Operator::Loop { .. } => {
                self.open.push(true);
                self.loops += 1;
            }
            Operator::Block { .. } | Operator::If { .. } | Operator::TryTable { .. } => {
                self.open.push(false);
            }
            Operator::End => self.loops -= u32::from(self.open.pop().unwrap_or(false)),
            _ => {}
        }
    }

    fn is_in_loop(&self) -> bool {
        self.loops > 0
    }
}

/// Whether the instruction gives a value that belongs to a garbage collector, when there are no types of such values.
fn makes_collected(operator: &Operator<'_>) -> bool {
    match operator {
        Operator::RefI31 | Operator::AnyConvertExtern => true,
        Operator::RefNull { hty } => {
            RefType::new(true, *hty).is_some_and(|ty| types::is_collected(ValType::Ref(ty)))
        }
        _ => block_result(operator).is_some_and(types::is_collected),
    }
}
