//! Where the added items of a rewritten module stand: behind the original ones, which keep their indices.

use crate::bridges;
use crate::emit::SegmentOperation;
use crate::facts::Facts;
use crate::helpers;
use crate::module::Module;
use crate::types::{self, TypeSpace};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use wasm_encoder as enc;
use wasmparser::{HeapType, ValType};

/// The added items of a rewritten module.
pub(crate) struct Indices {
    pub types: TypeSpace,
    pub control_memory: u32,
    pub request_memory: u32,
    pub hooks: u32,
    pub referenced_functions: u32,
    /// Tables of saved function, external and exception references, if there can be any.
    pub saved_references: [Option<u32>; 3],
    pub safepoint: u32,
    pub push_frame: u32,
    /// The first of the globals in which values are staged.
    pub staging: u32,
    pub savers: [Option<u32>; 3],
    pub drop_again: u32,
    /// Function types to which some function returns a reference that excludes null.
    pub dummies: BTreeMap<u32, u32>,
    /// Helpers for instructions on segments, each with its function.
    pub segments: BTreeMap<SegmentOperation, u32>,
    /// Functions that compute the offsets of active data segments, where these are no constants.
    pub data_offsets: BTreeMap<u32, u32>,
    pub bridges: Vec<Bridge>,
    pub hook_type: u32,
    pub safepoint_type: u32,
    pub push_frame_type: u32,
    pub saver_types: [u32; 3],
}

/// A bridge, see [`crate::bridges`].
#[derive(Clone, Copy)]
pub(crate) struct Bridge {
    pub function: u32,
    pub ty: u32,
    /// How many arguments it passes on.
    pub arguments: usize,
}

impl Indices {
    /// Assigns the indices. Functions come in this order: the original ones, a wrapper per imported one, then helpers.
    pub fn new(module: &Module<'_>, facts: &Facts) -> Self {
        let mut types = TypeSpace::new(module);
        let i32 = enc::ValType::I32;
        let hook_type = types.intern(&[], &[]);
        let safepoint_type = types.intern(&[i32], &[i32]);
        let push_frame_type = types.intern(&[enc::ValType::I64, enc::ValType::I64], &[]);
        let reference = |heap_type| {
            enc::ValType::Ref(enc::RefType {
                nullable: true,
                heap_type,
            })
        };
        let saver_types = [enc::HeapType::FUNC, enc::HeapType::EXTERN, types::EXN]
            .map(|heap_type| types.intern(&[reference(heap_type)], &[i32]));

        for operation in &facts.segment_operations {
            types.intern(&helpers::segment_parameters(module, *operation), &[]);
        }
        for segment in 0..module.data.len() as u32 {
            types.intern(&[], &[offset_type(module, segment)]);
        }

        let bridge_types: Vec<(usize, u32)> = bridges::bridges(&facts.bridged)
            .map(|functions| {
                let arguments = bridges::arguments(module, functions);
                let parameters = bridges::parameters(arguments);
                (arguments, types.intern(&parameters, &[enc::ValType::I64]))
            })
            .collect();

        let tables = module.tables.len() as u32;
        let mut next = module.function_count() + module.imported_functions;
        let mut function = || {
            next += 1;
            next - 1
        };
        let mut next_table = tables + 2;
        let saved_references = facts.references.map(|can_be| {
            next_table += u32::from(can_be);
            can_be.then(|| next_table - 1)
        });
        Self {
            control_memory: module.memories.len() as u32,
            request_memory: module.memories.len() as u32 + 1,
            hooks: tables,
            referenced_functions: tables + 1,
            saved_references,
            staging: module.globals.len() as u32,
            safepoint: function(),
            push_frame: function(),
            savers: facts.references.map(|can_be| can_be.then(&mut function)),
            drop_again: function(),
            dummies: returned_non_null(module)
                .into_iter()
                .map(|ty| (ty, function()))
                .collect(),
            segments: facts
                .segment_operations
                .iter()
                .map(|operation| (*operation, function()))
                .collect(),
            data_offsets: (0u32..)
                .zip(&module.data)
                .filter(|(_, data)| data.active.is_some() && data.constant_offset().is_none())
                .map(|(segment, _)| (segment, function()))
                .collect(),
            bridges: bridge_types
                .into_iter()
                .map(|(arguments, ty)| Bridge {
                    function: function(),
                    ty,
                    arguments,
                })
                .collect(),
            types,
            hook_type,
            safepoint_type,
            push_frame_type,
            saver_types,
        }
    }

    /// The type of the helper for an instruction on a segment.
    pub fn segment_type(&self, module: &Module<'_>, operation: SegmentOperation) -> u32 {
        self.types
            .get(&helpers::segment_parameters(module, operation), &[])
    }

    /// The type of the function that computes the offset of an active data segment.
    pub fn data_offset_type(&self, module: &Module<'_>, segment: u32) -> u32 {
        self.types.get(&[], &[offset_type(module, segment)])
    }

    /// The dummies as a map for quick look-up.
    pub fn dummy_map(&self) -> HashMap<u32, u32> {
        self.dummies
            .iter()
            .map(|(ty, function)| (*ty, *function))
            .collect()
    }
}

/// The function types to which a reference that excludes null is a result of some type.
pub(crate) fn returned_non_null(module: &Module<'_>) -> BTreeSet<u32> {
    let results = module.types.iter().flat_map(|ty| ty.results());
    let types = results.filter_map(|ty| match ty {
        ValType::Ref(reference) if !reference.is_nullable() => match reference.heap_type() {
            HeapType::Concrete(index) | HeapType::Exact(index) => Some(module.type_index(index)),
            HeapType::Abstract { .. } => None,
        },
        _ => None,
    });
    types.collect()
}

/// The type of the offsets of an active data segment.
fn offset_type(module: &Module<'_>, segment: u32) -> enc::ValType {
    match &module.data[segment as usize].active {
        Some((memory, _)) if module.memories[*memory as usize].memory64 => enc::ValType::I64,
        _ => enc::ValType::I32,
    }
}
