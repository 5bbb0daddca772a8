//! A module, parsed as far as checking needs it.

use crate::error::Result;
use wasmparser::{
    CompositeInnerType, Data, Element, ExternalKind, FuncToValidate, FuncType, FunctionBody,
    Global, MemoryType, Parser, Payload, Table, TypeRef, ValidPayload, Validator,
    ValidatorResources, WasmFeatures,
};

/// An import: module, name, what.
pub(crate) type Import<'a> = (&'a str, &'a str, TypeRef);
/// An export: name, what, index.
pub(crate) type Export<'a> = (&'a str, ExternalKind, u32);

/// The sections of a module.
#[derive(Default)]
pub(crate) struct Module<'a> {
    /// The types, those that are no functions' as none.
    pub types: Vec<Option<FuncType>>,
    pub imports: Vec<Import<'a>>,
    /// Type index of every function, imported ones first.
    pub functions: Vec<u32>,
    pub imported_functions: u32,
    /// Defined tables, and how many are imported before them.
    pub tables: Vec<Table<'a>>,
    pub imported_tables: u32,
    pub memories: Vec<MemoryType>,
    pub imported_memories: u32,
    pub globals: Vec<Global<'a>>,
    pub imported_globals: u32,
    pub tags: Vec<u32>,
    pub exports: Vec<Export<'a>>,
    pub start: Option<u32>,
    pub elements: Vec<Element<'a>>,
    pub data: Vec<Data<'a>>,
    pub bodies: Vec<FunctionBody<'a>>,
    resources: Option<ValidatorResources>,
}

fn features() -> WasmFeatures {
    WasmFeatures::WASM3.union(WasmFeatures::THREADS)
}

impl<'a> Module<'a> {
    /// Parses a module and validates everything but the bodies of functions.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut validator = Validator::new_with_features(features());
        let mut module = Self::default();
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload?;
            if let ValidPayload::Func(function, body) = validator.payload(&payload)? {
                module.resources.get_or_insert(function.resources);
                module.bodies.push(body);
            }
            module.read(payload)?;
        }
        Ok(module)
    }

    fn read(&mut self, payload: Payload<'a>) -> Result<()> {
        match payload {
            Payload::TypeSection(reader) => {
                for group in reader {
                    self.types.extend(group?.into_types().map(
                        |ty| match ty.composite_type.inner {
                            CompositeInnerType::Func(ty) => Some(ty),
                            _ => None,
                        },
                    ));
                }
            }
            Payload::ImportSection(reader) => {
                for import in reader.into_imports() {
                    let import = import?;
                    self.import((import.module, import.name, import.ty));
                }
            }
            Payload::FunctionSection(reader) => collect(reader, &mut self.functions)?,
            Payload::TableSection(reader) => collect(reader, &mut self.tables)?,
            Payload::MemorySection(reader) => collect(reader, &mut self.memories)?,
            Payload::GlobalSection(reader) => collect(reader, &mut self.globals)?,
            Payload::TagSection(reader) => {
                for tag in reader {
                    self.tags.push(tag?.func_type_idx);
                }
            }
            Payload::ExportSection(reader) => {
                for export in reader {
                    let export = export?;
                    self.exports.push((export.name, export.kind, export.index));
                }
            }
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::ElementSection(reader) => collect(reader, &mut self.elements)?,
            Payload::DataSection(reader) => collect(reader, &mut self.data)?,
            _ => {}
        }
        Ok(())
    }

    fn import(&mut self, import: Import<'a>) {
        match import.2 {
            TypeRef::Func(ty) | TypeRef::FuncExact(ty) => {
                self.functions.push(ty);
                self.imported_functions += 1;
            }
            TypeRef::Table(_) => self.imported_tables += 1,
            TypeRef::Memory(ty) => {
                self.memories.push(ty);
                self.imported_memories += 1;
            }
            TypeRef::Tag(ty) => self.tags.push(ty.func_type_idx),
            TypeRef::Global(_) => self.imported_globals += 1,
        }
        self.imports.push(import);
    }

    /// The number of functions, imported ones included.
    pub fn function_count(&self) -> u32 {
        self.functions.len() as u32
    }

    /// The number of tables, imported ones included.
    pub fn table_count(&self) -> u32 {
        self.imported_tables + self.tables.len() as u32
    }

    /// The number of globals, imported ones included.
    pub fn global_count(&self) -> u32 {
        self.imported_globals + self.globals.len() as u32
    }

    /// The body of a function, unless it is imported or does not exist.
    pub fn body(&self, function: u32) -> Option<&FunctionBody<'a>> {
        let defined = function.checked_sub(self.imported_functions)?;
        self.bodies.get(defined as usize)
    }

    /// The type of a function, if it exists.
    pub fn signature(&self, function: u32) -> Option<&FuncType> {
        self.function_type(*self.functions.get(function as usize)?)
    }

    /// The type with an index, if it is one of functions.
    pub fn function_type(&self, index: u32) -> Option<&FuncType> {
        self.types.get(index as usize)?.as_ref()
    }

    /// What is needed to validate the body of a defined function.
    pub fn to_validate(&self, function: u32) -> Option<FuncToValidate<ValidatorResources>> {
        Some(FuncToValidate {
            resources: self.resources.clone()?,
            index: function,
            ty: *self.functions.get(function as usize)?,
            features: features(),
        })
    }

    /// The index that is exported under a name.
    pub fn exported(&self, name: &str) -> Option<u32> {
        let export = self.exports.iter().find(|export| export.0 == name)?;
        Some(export.2)
    }
}

fn collect<'a, T: wasmparser::FromReader<'a>>(
    reader: wasmparser::SectionLimited<'a, T>,
    into: &mut Vec<T>,
) -> Result<()> {
    for item in reader {
        into.push(item?);
    }
    Ok(())
}
