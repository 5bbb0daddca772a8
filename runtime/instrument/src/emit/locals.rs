//! The locals of a function that is written anew: the original ones, then those that were added.

use crate::error::Result;
use crate::module::Module;
use crate::types::{self, ValueClass};
use std::collections::HashMap;
use wasm_encoder as enc;
use wasm_encoder::Encode;

/// The most locals that a function may have (a limit of implementations, wasmtime's among them).
const MAX_LOCALS: usize = 50_000;

pub(crate) struct Locals {
    /// Types of all locals; parameters first.
    types: Vec<enc::ValType>,
    /// How many of them are parameters and so not declared.
    params: usize,
    /// For original locals whose type excluded null: reading must assert it, as their new type admits it.
    non_null: Vec<bool>,
    parking: HashMap<(usize, enc::ValType), u32>,
    /// Where in the code written each local was last given an operand.
    parked_at: Vec<u32>,
    scratch: Option<u32>,
    leaving: Option<u32>,
    entry: Option<u32>,
}

impl Locals {
    /// The locals of `function`; those of a clone have no parameters among them.
    pub fn new(module: &Module<'_>, function: u32, as_clone: bool) -> Result<Self> {
        let params = module.function_type(function).params();
        let mut types: Vec<enc::ValType> =
            params.iter().map(|ty| types::encode(module, *ty)).collect();
        let params = if as_clone { 0 } else { types.len() };
        let mut reader = module.body(function).get_locals_reader()?;
        for _ in 0..reader.get_count() {
            let (count, ty) = reader.read()?;
            types.extend(std::iter::repeat_n(
                types::encode(module, ty),
                count as usize,
            ));
        }
        let mut non_null = vec![false; types.len()];
        for (local, ty) in types.iter_mut().enumerate().skip(params) {
            non_null[local] = types::is_non_null(*ty);
            *ty = types::nullable(*ty);
        }
        Ok(Self {
            types,
            params,
            non_null,
            parking: HashMap::new(),
            parked_at: Vec::new(),
            scratch: None,
            leaving: None,
            entry: None,
        })
    }

    /// Whether reading original local `local` must assert that it is not null.
    pub fn must_assert(&self, local: u32) -> bool {
        self.non_null.get(local as usize).copied().unwrap_or(false)
    }

    /// The local in which the operand at `height` of type `ty` is parked.
    pub fn parking(&mut self, height: usize, ty: enc::ValType) -> u32 {
        let ty = types::nullable(ty);
        let types = &mut self.types;
        *self
            .parking
            .entry((height, ty))
            .or_insert_with(|| add(types, ty))
    }

    /// Notes that the parking local gets its operand at `place` of the code written.
    pub fn park(&mut self, local: u32, place: usize) {
        let local = local as usize;
        if self.parked_at.len() <= local {
            self.parked_at.resize(local + 1, 0);
        }
        self.parked_at[local] = place as u32;
    }

    /// Where in the code written a parking local last got an operand.
    pub fn parked_at(&self, local: u32) -> u32 {
        self.parked_at.get(local as usize).copied().unwrap_or(0)
    }

    /// An i32 local that holds the address of a frame while it is written or read.
    pub fn scratch(&mut self) -> u32 {
        let types = &mut self.types;
        *self
            .scratch
            .get_or_insert_with(|| add(types, enc::ValType::I32))
    }

    /// An i64 local that holds, on the way to the root of the pads, the site that is left, and above it how much of the frame is
    /// stored directly or, if nothing is staged, the size of the frame.
    pub fn leaving(&mut self) -> u32 {
        let types = &mut self.types;
        *self
            .leaving
            .get_or_insert_with(|| add(types, enc::ValType::I64))
    }

    /// An i32 local that holds, in a clone, one more than the index of the point to go to, and zero once there.
    pub fn entry(&mut self) -> u32 {
        let types = &mut self.types;
        *self
            .entry
            .get_or_insert_with(|| add(types, enc::ValType::I32))
    }

    /// The type of a local.
    pub fn ty(&self, local: u32) -> enc::ValType {
        self.types[local as usize]
    }

    /// The class of the values of a local.
    pub fn class(&self, local: u32) -> ValueClass {
        match self.ty(local) {
            enc::ValType::I32 => ValueClass::I32,
            enc::ValType::I64 => ValueClass::I64,
            enc::ValType::F32 => ValueClass::F32,
            enc::ValType::F64 => ValueClass::F64,
            enc::ValType::V128 => ValueClass::V128,
            enc::ValType::Ref(reference) => types::class_of_encoded(reference),
        }
    }

    /// Appends the declaration of the locals; none if there are too many.
    pub fn declare(&self, bytes: &mut Vec<u8>) -> Option<()> {
        if self.types.len() > MAX_LOCALS {
            return None;
        }
        let runs: Vec<&[enc::ValType]> =
            self.types[self.params..].chunk_by(|a, b| a == b).collect();
        runs.len().encode(bytes);
        for run in runs {
            run.len().encode(bytes);
            run[0].encode(bytes);
        }
        Some(())
    }
}

fn add(types: &mut Vec<enc::ValType>, ty: enc::ValType) -> u32 {
    types.push(ty);
    types.len() as u32 - 1
}
