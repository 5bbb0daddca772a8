//! Value types: between the parser's and the encoder's, and as classes that a frame distinguishes.

use crate::module::Module;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use wasm_encoder as enc;
use wasm_encoder::Encode;
use wasmparser::{AbstractHeapType, HeapType, RefType, ValType};

/// What a value in a frame is. References are told apart by what they refer to, not by their static type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ValueClass {
    /// A 32-bit integer.
    I32,
    /// A 64-bit integer.
    I64,
    /// A 32-bit float.
    F32,
    /// A 64-bit float.
    F64,
    /// A 128-bit vector.
    V128,
    /// A reference to a function, or null.
    Function,
    /// A reference to something of the host, or null.
    Extern,
    /// A reference to an exception, or null.
    Exception,
}

impl ValueClass {
    /// Its size in a raw frame, in bytes. A reference is an index into a table of saved references.
    pub fn size_bytes(self) -> u32 {
        match self {
            Self::I32 | Self::F32 | Self::Function | Self::Extern | Self::Exception => 4,
            Self::I64 | Self::F64 => 8,
            Self::V128 => 16,
        }
    }

    /// Which of the tables of saved references a reference of this class goes into: functions, externs, exceptions.
    pub fn saved_table(self) -> usize {
        match self {
            Self::Extern => 1,
            Self::Exception => 2,
            _ => 0,
        }
    }

    /// The class of a value of type `ty`.
    pub fn of(ty: ValType) -> Self {
        match ty {
            ValType::I32 => Self::I32,
            ValType::I64 => Self::I64,
            ValType::F32 => Self::F32,
            ValType::F64 => Self::F64,
            ValType::V128 => Self::V128,
            ValType::Ref(reference) => match reference.heap_type() {
                HeapType::Abstract {
                    ty: AbstractHeapType::Extern | AbstractHeapType::NoExtern,
                    ..
                } => Self::Extern,
                HeapType::Abstract {
                    ty: AbstractHeapType::Exn | AbstractHeapType::NoExn,
                    ..
                } => Self::Exception,
                // Every other heap type that is admitted is one of functions.
                _ => Self::Function,
            },
        }
    }
}

/// The heap type of all exceptions.
pub(crate) const EXN: enc::HeapType = enc::HeapType::Abstract {
    shared: false,
    ty: enc::AbstractHeapType::Exn,
};

/// The encoder's form of a value type of `module`.
pub(crate) fn encode(module: &Module<'_>, ty: ValType) -> enc::ValType {
    match ty {
        ValType::I32 => enc::ValType::I32,
        ValType::I64 => enc::ValType::I64,
        ValType::F32 => enc::ValType::F32,
        ValType::F64 => enc::ValType::F64,
        ValType::V128 => enc::ValType::V128,
        ValType::Ref(reference) => enc::ValType::Ref(encode_ref(module, reference)),
    }
}

/// The encoder's form of a reference type of `module`.
pub(crate) fn encode_ref(module: &Module<'_>, ty: RefType) -> enc::RefType {
    use enc::AbstractHeapType as Abstract;
    let heap_type = match ty.heap_type() {
        HeapType::Concrete(index) => enc::HeapType::Concrete(module.type_index(index)),
        HeapType::Exact(index) => enc::HeapType::Exact(module.type_index(index)),
        HeapType::Abstract { shared, ty } => {
            let ty = match ty {
                AbstractHeapType::Extern => Abstract::Extern,
                AbstractHeapType::NoExtern => Abstract::NoExtern,
                AbstractHeapType::Exn => Abstract::Exn,
                AbstractHeapType::NoExn => Abstract::NoExn,
                AbstractHeapType::NoFunc => Abstract::NoFunc,
                _ => Abstract::Func,
            };
            enc::HeapType::Abstract { shared, ty }
        }
    };
    enc::RefType {
        nullable: ty.is_nullable(),
        heap_type,
    }
}

/// The same type, but admitting null, so that a local of it needs no initial value.
pub(crate) fn nullable(ty: enc::ValType) -> enc::ValType {
    match ty {
        enc::ValType::Ref(reference) => enc::ValType::Ref(enc::RefType {
            nullable: true,
            ..reference
        }),
        other => other,
    }
}

/// Whether values of the type belong to a garbage collector.
pub(crate) fn is_collected(ty: ValType) -> bool {
    use AbstractHeapType as Abstract;
    let ValType::Ref(reference) = ty else {
        return false;
    };
    match reference.heap_type() {
        HeapType::Abstract { ty, .. } => !matches!(
            ty,
            Abstract::Func
                | Abstract::NoFunc
                | Abstract::Extern
                | Abstract::NoExtern
                | Abstract::Exn
                | Abstract::NoExn
        ),
        // The module has no other types than those of functions.
        HeapType::Concrete(_) | HeapType::Exact(_) => false,
    }
}

/// The type of all values of the same kind: clones return such, as the call that waits for a value may be typed by any
/// supertype of what the function returns.
pub(crate) fn top(ty: enc::ValType) -> enc::ValType {
    let enc::ValType::Ref(reference) = ty else {
        return ty;
    };
    enc::ValType::Ref(match class_of_encoded(reference) {
        ValueClass::Extern => enc::RefType::EXTERNREF,
        ValueClass::Exception => enc::RefType::EXNREF,
        _ => enc::RefType::FUNCREF,
    })
}

/// Whether null is no value of the type.
pub(crate) fn is_non_null(ty: enc::ValType) -> bool {
    matches!(ty, enc::ValType::Ref(reference) if !reference.nullable)
}

/// The types of a module under construction: those of the original at their indices, then those that were added.
pub(crate) struct TypeSpace {
    next: u32,
    added: Vec<(Vec<enc::ValType>, Vec<enc::ValType>)>,
    index: HashMap<(Vec<enc::ValType>, Vec<enc::ValType>), u32>,
}

impl TypeSpace {
    /// The types of `module`, and for each of them what a control instruction without parameters needs.
    pub fn new(module: &Module<'_>) -> Self {
        let mut types = Self {
            next: module.types.len() as u32,
            added: Vec::new(),
            index: HashMap::new(),
        };
        for ty in &module.types {
            for list in [ty.params(), ty.results()] {
                let list: Vec<enc::ValType> = list.iter().map(|ty| encode(module, *ty)).collect();
                types.intern(&[], &list);
                types.intern(&[], &list.into_iter().map(top).collect::<Vec<_>>());
            }
        }
        types
    }

    /// The index of the function type, which is added if it is new.
    pub fn intern(&mut self, params: &[enc::ValType], results: &[enc::ValType]) -> u32 {
        let key = (params.to_vec(), results.to_vec());
        if let Some(index) = self.index.get(&key) {
            return *index;
        }
        let index = self.next + self.added.len() as u32;
        self.added.push(key.clone());
        self.index.insert(key, index);
        index
    }

    /// The index of a function type that has been added.
    pub fn get(&self, params: &[enc::ValType], results: &[enc::ValType]) -> u32 {
        self.index[&(params.to_vec(), results.to_vec())]
    }

    /// The index of the type without parameters that has `results`, which those of one of the module's types are.
    pub fn results(&self, results: &[enc::ValType]) -> u32 {
        self.get(&[], results)
    }

    /// The block type of a control instruction without parameters.
    pub fn block(&self, results: &[enc::ValType]) -> enc::BlockType {
        match results {
            [] => enc::BlockType::Empty,
            [single] => enc::BlockType::Result(*single),
            _ => enc::BlockType::FunctionType(self.results(results)),
        }
    }

    /// The content of the type section: the original's, then the added types.
    pub fn section(&self, module: &Module<'_>) -> Vec<u8> {
        let types = module
            .sections
            .iter()
            .find(|(id, _)| *id == enc::SectionId::Type as u8);
        let original = types.map_or(&[][..], |(_, range)| &module.bytes[range.clone()]);
        let mut reader = wasmparser::BinaryReader::new(original, 0);
        // The validator has read the count before; groups of mutually recursive types count once.
        let groups = reader.read_var_u32().unwrap_or(0);
        let mut content = Vec::with_capacity(original.len() + 8 * self.added.len());
        (groups + self.added.len() as u32).encode(&mut content);
        content.extend_from_slice(&original[reader.original_position()..]);
        for (params, results) in &self.added {
            content.push(0x60);
            params.as_slice().encode(&mut content);
            results.as_slice().encode(&mut content);
        }
        content
    }
}

/// The class of values of an encoded reference type.
pub(crate) fn class_of_encoded(ty: enc::RefType) -> ValueClass {
    use enc::AbstractHeapType as Abstract;
    match ty.heap_type {
        enc::HeapType::Abstract {
            ty: Abstract::Extern | Abstract::NoExtern,
            ..
        } => ValueClass::Extern,
        enc::HeapType::Abstract {
            ty: Abstract::Exn | Abstract::NoExn,
            ..
        } => ValueClass::Exception,
        _ => ValueClass::Function,
    }
}
