//! What is written for each instruction.

use super::{Emitter, Kind, SegmentOperation};
use crate::error::Result;
use wasm_encoder as enc;
use wasmparser::Operator;

impl<'a> Emitter<'_, '_, 'a> {
    /// Writes `operator`, which lies at `offset..end`; `live` is false only for what ends dead code.
    pub(super) fn emit(
        &mut self,
        operator: &Operator<'a>,
        offset: usize,
        end: usize,
        live: bool,
    ) -> Result<()> {
        match *operator {
            Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::TryTable { .. } => self.open(operator, offset, end),
            Operator::Else => self.alternative(operator, offset, end, live),
            Operator::End => self.close(operator, offset, live),
            Operator::Br { .. }
            | Operator::BrIf { .. }
            | Operator::BrTable { .. }
            | Operator::BrOnNull { .. }
            | Operator::BrOnNonNull { .. }
            | Operator::BrOnCast { .. }
            | Operator::BrOnCastFail { .. } => self.branch(operator, offset),
            Operator::Call { .. } | Operator::CallIndirect { .. } | Operator::CallRef { .. } => {
                self.call(operator, offset, end)
            }
            Operator::LocalGet { local_index } | Operator::LocalTee { local_index }
                if self.locals.must_assert(local_index) =>
            {
                let (pops, pushes) = self.arity(operator);
                self.need(pops as usize);
                self.copy(offset, end);
                self.sink().ref_as_non_null();
                self.advance(operator, offset, pops, pushes)
            }
            _ => self.other(operator, offset, end),
        }
    }

    /// Instructions that are copied, but for indices that differ.
    fn other(&mut self, operator: &Operator<'a>, offset: usize, end: usize) -> Result<()> {
        let (pops, pushes) = self.arity(operator);
        self.need(pops as usize);
        if let Some(operation) = SegmentOperation::of(operator) {
            self.segment_operation(operation, offset, end);
        } else {
            match *operator {
                Operator::ReturnCall { function_index } => {
                    let callee = self.function(function_index);
                    self.sink().return_call(callee);
                }
                Operator::RefFunc { function_index } => self.function_reference(function_index),
                _ => self.copy(offset, end),
            }
        }
        self.advance(operator, offset, pops, pushes)
    }

    /// Writes the call instruction alone.
    pub(super) fn write_call(&mut self, operator: &Operator<'a>, offset: usize, end: usize) {
        match *operator {
            Operator::Call { function_index } => {
                let callee = self.function(function_index);
                self.sink().call(callee);
            }
            _ => self.copy(offset, end),
        }
    }

    /// The index, in the module under construction, of what the original calls function `index`.
    fn function(&self, index: u32) -> u32 {
        let in_main = main_function(self.module, index);
        match &self.around.kind {
            Kind::Main => in_main,
            Kind::Clones(indices) => indices.functions[&in_main],
        }
    }

    fn function_reference(&mut self, index: u32) {
        match &self.around.kind {
            Kind::Main => {
                let function = self.function(index);
                self.sink().ref_func(function);
            }
            Kind::Clones(indices) => {
                // A reference to an imported function would be another one than the rewritten module's own.
                let (table, place) = (indices.referenced_table, indices.referenced[&index]);
                let ty = self.module.functions[index as usize];
                self.sink()
                    .i32_const(place as i32)
                    .table_get(table)
                    .ref_cast_non_null(enc::HeapType::Concrete(ty));
            }
        }
    }

    fn segment_operation(&mut self, operation: SegmentOperation, offset: usize, end: usize) {
        match &self.around.kind {
            Kind::Main => {
                self.copy(offset, end);
                let layout = self.module.control_layout();
                let flag = match operation {
                    SegmentOperation::DataDrop { segment } => layout.data_dropped(segment),
                    SegmentOperation::ElementDrop { segment } => layout.element_dropped(segment),
                    _ => return,
                };
                let flag = self.memory(flag);
                self.sink().i32_const(0).i32_const(1).i32_store8(flag);
            }
            Kind::Clones(indices) => {
                let helper = indices.segments[&operation];
                self.sink().call(helper);
            }
        }
    }
}

/// The index, in the rewritten module, of what the original calls function `index`: imported functions are called
/// through wrappers that can be suspended.
pub(crate) fn main_function(module: &crate::module::Module<'_>, index: u32) -> u32 {
    if module.is_imported_function(index) {
        module.function_count() + index
    } else {
        index
    }
}
