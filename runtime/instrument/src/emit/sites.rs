//! Safepoints: the test, the cold path and the landing pad, and calls that leave a frame.

use super::{Emitter, Kind, Operand};
use crate::analysis::is_checked_call;
use crate::control::{FENCE, REQUEST_WORD, RESTORE_POINTER, SAVE_POINTER, SAVED_HEADER_BYTES};
use crate::error::Result;
use crate::helpers;
use crate::points::Point;
use crate::types::{self, ValueClass};
use wasm_encoder as enc;
use wasmparser::{Operator, ValType};

/// A frame as a safepoint stores it.
struct Frame {
    /// Names the safepoint: an offset in the original module.
    site: u32,
    /// In bytes, its header included.
    size: u32,
    /// Live locals, then operands.
    values: Vec<(u32, ValueClass)>,
}

impl<'a> Emitter<'_, '_, 'a> {
    /// A safepoint at the entry of the function. `site` names it in a raw frame.
    pub(super) fn poll_entry(&mut self, point: Point, site: u32) {
        let frame = self.frame(point, site, &[]);
        self.ask(&frame);
    }

    /// A safepoint at the header of a loop, where everything on the operand stack is parked; `is_fenced` if compilers
    /// cannot believe anyway that memory is the same on every turn.
    pub(super) fn poll_loop(&mut self, point: Point, site: u32, is_fenced: bool) {
        let operands = self.parked_below(self.stack.len());
        let frame = self.frame(point, site, &operands);
        self.check(&frame);
        if !is_fenced && !self.around.plan.options.countable_safepoints {
            let fence = helpers::at(self.around.request_memory, FENCE);
            self.sink().i32_const(0).i32_const(0).i32_store(fence);
        }
    }

    /// What a frame holds that is stored at `point`.
    fn frame(&self, point: Point, site: u32, operands: &[(u32, ValueClass)]) -> Frame {
        let live = self.analysis.live_at(point).unwrap_or_default();
        let mut values: Vec<(u32, ValueClass)> = live
            .iter()
            .map(|&local| (local, self.locals.class(local)))
            .collect();
        values.extend_from_slice(operands);
        let bytes: u32 = values.iter().map(|(_, class)| class.size_bytes()).sum();
        Frame {
            site,
            size: SAVED_HEADER_BYTES + bytes,
            values,
        }
    }

    /// A safepoint that only has to leave when the program is unwinding, unless safepoints are to be counted.
    fn check(&mut self, frame: &Frame) {
        if self.around.plan.options.countable_safepoints {
            self.ask(frame);
        } else {
            self.leave(frame);
        }
    }

    /// `if request word { address = safepoint(size); if address { store; return } }`
    ///
    /// The host is asked, and may say that the program goes on.
    fn ask(&mut self, frame: &Frame) {
        let address = self.locals.scratch();
        let request = helpers::at(self.around.request_memory, REQUEST_WORD);
        let safepoint = self.around.safepoint;
        self.sink().i32_const(0).i32_load(request);
        self.hint(false);
        self.sink()
            .if_(enc::BlockType::Empty)
            .i32_const(frame.size as i32)
            .call(safepoint)
            .local_tee(address);
        // The path that does not come back is the first that Cranelift's numbering of blocks follows, and so the last
        // in its order: behind all loops, where the values that it stores don't count as used in a loop.
        self.hint(false);
        self.sink().if_(enc::BlockType::Empty);
        self.store_frame(address, frame);
        self.default_results();
        self.sink().return_().end().end();
    }

    /// `if request word < 0 { address = save pointer; store; save pointer += size; return }`
    ///
    /// Nothing is called, and nothing comes back, so that the hot code has to hold no value anywhere for its sake. That
    /// the control memory is full shows as a trap.
    fn leave(&mut self, frame: &Frame) {
        let address = self.locals.scratch();
        let request = helpers::at(self.around.request_memory, REQUEST_WORD);
        let save_pointer = self.memory(SAVE_POINTER);
        self.sink()
            .i32_const(0)
            .i32_load(request)
            .i32_const(0)
            .i32_lt_s();
        self.hint(false);
        self.sink()
            .if_(enc::BlockType::Empty)
            .i32_const(0)
            .i32_load(save_pointer)
            .local_set(address);
        self.store_frame(address, frame);
        self.sink()
            .i32_const(0)
            .local_get(address)
            .i32_const(frame.size as i32)
            .i32_add()
            .i32_store(save_pointer);
        self.default_results();
        self.sink().return_().end();
    }

    /// Stores header and values at the address in `address`.
    fn store_frame(&mut self, address: u32, frame: &Frame) {
        let header = u64::from(self.function) | u64::from(frame.site) << 32;
        let (at, size_at) = (self.memory(0), self.memory(8));
        self.sink()
            .local_get(address)
            .i64_const(header as i64)
            .i64_store(at);
        self.sink()
            .local_get(address)
            .i32_const(frame.size as i32)
            .i32_store(size_at);
        let (control_memory, savers) = (self.around.control_memory, self.around.save_reference);
        let mut offset = SAVED_HEADER_BYTES;
        for &(local, class) in &frame.values {
            helpers::store_value(
                &mut self.sink(),
                control_memory,
                address,
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
        let frame = self.frame(point, offset as u32, &operands);
        self.check(&frame);
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
