//! Safepoints: the test, the cold path and the landing pad, and calls that leave a frame.

use super::{Emitter, Kind, Operand};
use crate::analysis::is_checked_call;
use crate::control::{REQUEST_WORD, RESTORE_POINTER, SAVED_HEADER_BYTES};
use crate::error::Result;
use crate::helpers;
use crate::points::Point;
use crate::types::{self, ValueClass};
use wasm_encoder as enc;
use wasmparser::{Operator, ValType};

impl<'a> Emitter<'_, '_, 'a> {
    /// A poll at a place where everything on the operand stack is parked. `site` names it in a raw frame.
    pub(super) fn poll(&mut self, point: Point, site: u32) {
        let operands = self.parked_below(self.stack.len());
        self.check(point, site, &operands);
    }

    /// `if request word { frame = safepoint(size); if frame { store; return } }`
    fn check(&mut self, point: Point, site: u32, operands: &[(u32, ValueClass)]) {
        let live = self.analysis.live_at(point).unwrap_or_default().to_vec();
        let mut values: Vec<(u32, ValueClass)> = live
            .into_iter()
            .map(|local| (local, self.locals.class(local)))
            .collect();
        values.extend_from_slice(operands);
        let size = SAVED_HEADER_BYTES
            + values
                .iter()
                .map(|(_, class)| class.size_bytes())
                .sum::<u32>();
        let frame = self.locals.scratch();
        let request = self.memory(REQUEST_WORD);
        let safepoint = self.around.safepoint;
        self.sink().i32_const(0).i32_load(request);
        self.hint(false);
        self.sink()
            .if_(enc::BlockType::Empty)
            .i32_const(size as i32)
            .call(safepoint)
            .local_tee(frame)
            .i32_eqz();
        self.hint(true);
        self.sink().br_if(0);
        self.store_frame(frame, site, size, &values);
        self.default_results();
        self.sink().return_().end();
    }

    /// Stores header and values at the address in `frame`.
    fn store_frame(&mut self, frame: u32, site: u32, size: u32, values: &[(u32, ValueClass)]) {
        let header = u64::from(self.function) | u64::from(site) << 32;
        let (at, size_at) = (self.memory(0), self.memory(8));
        self.sink()
            .local_get(frame)
            .i64_const(header as i64)
            .i64_store(at);
        self.sink()
            .local_get(frame)
            .i32_const(size as i32)
            .i32_store(size_at);
        let (control_memory, savers) = (self.around.control_memory, self.around.save_reference);
        let mut offset = SAVED_HEADER_BYTES;
        for &(local, class) in values {
            helpers::store_value(
                &mut self.sink(),
                control_memory,
                frame,
                local,
                class,
                offset,
                savers,
            );
            offset += class.size_bytes();
        }
    }

    /// Any values of the function's result types: nobody looks at them while the stack unwinds.
    fn default_results(&mut self) {
        let around = self.around;
        for ty in self.results.clone() {
            helpers::dummy_value(&mut self.sink(), ty, around.safepoint, &around.dummies);
        }
    }

    /// A call that is no tail call.
    pub(super) fn call(
        &mut self,
        operator: &Operator<'a>,
        offset: usize,
        end: usize,
    ) -> Result<()> {
        let (params, results) = self.arity(operator);
        let (params, results) = (params as usize, results as usize);
        let point = Point::Calling(offset as u32);
        let target = self.targets.id(point);
        let checks_all = self.around.plan.decision(self.function).checks_all_calls;
        let checked = is_checked_call(self.around.plan, checks_all, operator) == Some(true);
        if !checked && target.is_none() {
            self.need(params);
            self.write_call(operator, offset, end);
            return self.advance(operator, offset, params as u32, results as u32);
        }
        let beneath = self.stack.len() - params;
        if target.is_some() || self.stack[..beneath].contains(&Operand::Stacked) {
            self.park_all();
        }
        let result_types = self.result_types(operator);
        if let Some(target) = target {
            let operands = self.parked_below(beneath);
            self.targets.describe(target, &operands);
            self.reenter_or_call(operator, offset, end, params, &result_types);
        } else {
            self.need(params);
            self.write_call(operator, offset, end);
        }
        self.advance(operator, offset, params as u32, results as u32)?;
        self.park_results(beneath, &result_types);
        let operands = self.parked_below(self.stack.len());
        self.check(point, offset as u32, &operands);
        Ok(())
    }

    /// The results lie on the real stack; each goes into its local.
    fn park_results(&mut self, beneath: usize, types: &[enc::ValType]) {
        for (index, ty) in types.iter().enumerate().rev() {
            self.park_top_as(beneath + index, *ty);
        }
    }

    /// In a clone, at the call that was in progress: goes on in the clone of what was called, or calls.
    fn reenter_or_call(
        &mut self,
        operator: &Operator<'a>,
        offset: usize,
        end: usize,
        params: usize,
        results: &[enc::ValType],
    ) {
        let Kind::Clones(indices) = &self.around.kind else {
            return;
        };
        let table = indices.clones;
        let tops: Vec<enc::ValType> = results.iter().map(|ty| types::top(*ty)).collect();
        let ty = self.around.types.results(&tops);
        let block = self.around.types.block(results);
        let entry = self.locals.entry();
        let pointer = self.memory(RESTORE_POINTER);
        let clone = self.memory(0);
        self.sink().local_get(entry);
        self.hint(false);
        let mut sink = self.sink();
        sink.if_(block).i32_const(0).local_set(entry);
        sink.i32_const(0)
            .i32_load(pointer)
            .i32_load(clone)
            .call_indirect(table, ty);
        self.narrow_results(self.stack.len() - params, &tops, results);
        self.sink().else_();
        let arguments = self.stack[self.stack.len() - params..].to_vec();
        for argument in arguments {
            if let Operand::Parked { local, non_null } = argument {
                self.get_parked(local, non_null);
            }
        }
        self.write_call(operator, offset, end);
        self.sink().end();
    }

    /// Casts what a clone returned, which lies on the real stack, to the types that the call has.
    fn narrow_results(&mut self, beneath: usize, tops: &[enc::ValType], results: &[enc::ValType]) {
        if tops == results {
            return;
        }
        let locals: Vec<u32> = (beneath..)
            .zip(tops)
            .map(|(height, ty)| self.locals.parking(height, *ty))
            .collect();
        for local in locals.iter().rev() {
            self.sink().local_set(*local);
        }
        for ((local, top), ty) in locals.into_iter().zip(tops).zip(results) {
            let mut sink = self.sink();
            sink.local_get(local);
            match ty {
                enc::ValType::Ref(reference) if ty != top && reference.nullable => {
                    sink.ref_cast_nullable(reference.heap_type);
                }
                enc::ValType::Ref(reference) if ty != top => {
                    sink.ref_cast_non_null(reference.heap_type);
                }
                _ => {}
            }
        }
    }

    fn result_types(&self, operator: &Operator<'a>) -> Vec<enc::ValType> {
        let ty = match *operator {
            Operator::Call { function_index } => self.module.function_type(function_index),
            Operator::CallIndirect { type_index, .. } | Operator::CallRef { type_index } => {
                &self.module.types[type_index as usize]
            }
            _ => unreachable!("only calls are called"),
        };
        ty.results()
            .iter()
            .map(|ty: &ValType| types::encode(self.module, *ty))
            .collect()
    }
}
