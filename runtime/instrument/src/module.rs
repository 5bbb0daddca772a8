//! The original module, parsed and validated section by section; function bodies are looked at later.

use crate::control::ControlLayout;
use crate::error::{Error, Result};
use crate::names;
use crate::types;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::OnceLock;
use wasmparser::types::CoreTypeId;
use wasmparser::{
    ConstExpr, DataKind, ElementItems, ExternalKind, FuncToValidate, FuncType, FunctionBody,
    GlobalType, MemoryType, Operator, Parser, Payload, TableType, TypeRef, UnpackedIndex, ValType,
    ValidPayload, Validator, ValidatorResources, WasmFeatures,
};

/// An import: where it comes from and what it is.
#[derive(Clone, Copy, Debug)]
pub struct Import<'a> {
    /// The module name.
    pub module: &'a str,
    /// The item's name.
    pub name: &'a str,
    /// What is imported.
    pub ty: TypeRef,
}

/// An export of the original module.
#[derive(Clone, Copy, Debug)]
pub struct Export<'a> {
    /// The name under which it is exported.
    pub name: &'a str,
    /// What it is.
    pub kind: ExternalKind,
    /// Its index among items of that kind.
    pub index: u32,
}

/// A data segment.
#[derive(Clone, Debug)]
pub struct DataSegment<'a> {
    /// For an active segment: the memory and the offset expression.
    pub active: Option<(u32, ConstExpr<'a>)>,
    /// The bytes of the segment.
    pub bytes: &'a [u8],
}

impl DataSegment<'_> {
    /// Where an active segment goes, if that is written down as a number. Otherwise the rewritten module has a function
    /// that computes it.
    pub fn constant_offset(&self) -> Option<u64> {
        let (_, expression) = self.active.as_ref()?;
        let mut operators = expression.get_operators_reader();
        let offset = match operators.read().ok()? {
            Operator::I32Const { value } => u64::from(value as u32),
            Operator::I64Const { value } => value as u64,
            _ => return None,
        };
        // Extended constant expressions go on with arithmetic.
        matches!(operators.read().ok()?, Operator::End).then_some(offset)
    }
}

/// The sections of a module, and what is needed to look at any function body alone.
pub struct Module<'a> {
    pub(crate) bytes: &'a [u8],
    /// Section id and content range, in order of appearance; custom sections have id 0.
    pub(crate) sections: Vec<(u8, Range<usize>)>,
    pub(crate) types: Vec<FuncType>,
    pub(crate) imports: Vec<Import<'a>>,
    pub(crate) imported_functions: u32,
    pub(crate) imported_tables: u32,
    pub(crate) imported_memories: u32,
    /// Type index of every function, imported ones first.
    pub(crate) functions: Vec<u32>,
    pub(crate) tables: Vec<TableType>,
    pub(crate) memories: Vec<MemoryType>,
    pub(crate) globals: Vec<GlobalType>,
    /// Type index of every tag.
    pub(crate) tags: Vec<u32>,
    pub(crate) exports: Vec<Export<'a>>,
    pub(crate) start: Option<u32>,
    pub(crate) elements: Vec<wasmparser::Element<'a>>,
    pub(crate) data: Vec<DataSegment<'a>>,
    pub(crate) bodies: Vec<FunctionBody<'a>>,
    pub(crate) name_section: Option<Range<usize>>,
    /// What the names of added exports begin with.
    pub(crate) prefix: String,
    /// Set when the module is validated.
    validated: OnceLock<Validated>,
}

/// What validating a module leaves behind.
pub(crate) struct Validated {
    /// None if the module has no functions.
    resources: Option<ValidatorResources>,
    type_index_of_id: HashMap<CoreTypeId, u32>,
}

impl Validated {
    /// Validates everything except the function bodies.
    fn new(bytes: &[u8]) -> Result<Self> {
        let mut validator = Validator::new_with_features(guest_features());
        let mut resources = None;
        let mut type_index_of_id = HashMap::new();
        for payload in Parser::new(0).parse_all(bytes) {
            match validator.payload(&payload?)? {
                ValidPayload::Func(function, _) => {
                    resources.get_or_insert(function.resources);
                }
                ValidPayload::End(types) => {
                    let types = types.as_ref();
                    for index in 0..types.core_type_count_in_module() {
                        let id = types.core_type_at_in_module(index);
                        type_index_of_id.entry(id).or_insert(index);
                    }
                }
                ValidPayload::Ok | ValidPayload::Parser(_) => {}
            }
        }
        Ok(Self {
            resources,
            type_index_of_id,
        })
    }
}

/// The WebAssembly features that guests may use: what wasmtime accepts by default. Of garbage collection the types of
/// functions and their casts are admitted; values that a collector manages are refused by name.
fn guest_features() -> WasmFeatures {
    WasmFeatures::WASM3.union(WasmFeatures::THREADS)
}

/// All features that have a name, to tell "cannot be suspended" from "is not WebAssembly".
fn known_features() -> WasmFeatures {
    WasmFeatures::all().difference(WasmFeatures::COMPONENT_MODEL)
}

impl<'a> Module<'a> {
    /// Parses `bytes` and validates everything except the function bodies.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for bytes that are no module, [`Error::Component`] for components, [`Error::Unsupported`]
    /// for modules that use shared memories or garbage-collected references.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        if Parser::is_component(bytes) {
            return Err(Error::Component);
        }
        let module = match Self::parse_validating(bytes) {
            Ok(module) => module,
            Err(error) => return Err(explain(bytes, error)),
        };
        if module.memories.iter().any(|memory| memory.shared) {
            return Err(Error::Unsupported {
                feature: "a shared memory (threads)".into(),
            });
        }
        let signatures = module
            .types
            .iter()
            .flat_map(|ty| ty.params().iter().chain(ty.results()));
        let globals = module.globals.iter().map(|global| &global.content_type);
        let collected = signatures.chain(globals).any(|ty| types::is_collected(*ty))
            || module
                .tables
                .iter()
                .any(|table| types::is_collected(ValType::Ref(table.element_type)));
        if collected {
            Err(Error::collected())
        } else {
            Ok(module)
        }
    }

    /// Parses bytes that [`Module::parse`] has accepted before, maybe in another process: they are validated when somebody looks at a
    /// function body, which is seldom. With other bytes, functions of this package may panic, and what they make must not be kept.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for some bytes that are no module.
    pub fn parse_accepted(bytes: &'a [u8]) -> Result<Self> {
        let mut module = Self {
            bytes,
            sections: Vec::new(),
            types: Vec::new(),
            imports: Vec::new(),
            imported_functions: 0,
            imported_tables: 0,
            imported_memories: 0,
            functions: Vec::new(),
            tables: Vec::new(),
            memories: Vec::new(),
            globals: Vec::new(),
            tags: Vec::new(),
            exports: Vec::new(),
            start: None,
            elements: Vec::new(),
            data: Vec::new(),
            bodies: Vec::new(),
            name_section: None,
            prefix: String::new(),
            validated: OnceLock::new(),
        };
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload?;
            if let Some((id, range)) = payload.as_section() {
                module.sections.push((id, range));
            }
            module.read_section(payload)?;
        }
        module.prefix = names::prefix(&module.exports);
        Ok(module)
    }

    fn parse_validating(bytes: &'a [u8]) -> Result<Self> {
        // First of all, so that nothing is read that is not valid.
        let validated = Validated::new(bytes)?;
        let module = Self::parse_accepted(bytes)?;
        Ok(Self {
            validated: validated.into(),
            ..module
        })
    }

    /// What validating leaves behind. Many at once should not be the first to ask.
    pub(crate) fn validated(&self) -> Result<&Validated> {
        if let Some(validated) = self.validated.get() {
            return Ok(validated);
        }
        let validated = Validated::new(self.bytes)?;
        Ok(self.validated.get_or_init(|| validated))
    }

    fn read_section(&mut self, payload: Payload<'a>) -> Result<()> {
        match payload {
            Payload::TypeSection(reader) => {
                for group in reader {
                    for ty in group?.into_types() {
                        let wasmparser::CompositeInnerType::Func(func) = ty.composite_type.inner
                        else {
                            return Err(Error::collected());
                        };
                        self.types.push(func);
                    }
                }
            }
            Payload::ImportSection(reader) => {
                for import in reader.into_imports() {
                    let import = import?;
                    self.read_import(Import {
                        module: import.module,
                        name: import.name,
                        ty: import.ty,
                    });
                }
            }
            Payload::FunctionSection(reader) => {
                for ty in reader {
                    self.functions.push(ty?);
                }
            }
            Payload::TableSection(reader) => {
                for table in reader {
                    self.tables.push(table?.ty);
                }
            }
            Payload::MemorySection(reader) => {
                for memory in reader {
                    self.memories.push(memory?);
                }
            }
            Payload::GlobalSection(reader) => {
                for global in reader {
                    self.globals.push(global?.ty);
                }
            }
            Payload::TagSection(reader) => {
                for tag in reader {
                    self.tags.push(tag?.func_type_idx);
                }
            }
            Payload::ExportSection(reader) => {
                for export in reader {
                    let export = export?;
                    self.exports.push(Export {
                        name: export.name,
                        kind: export.kind,
                        index: export.index,
                    });
                }
            }
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::ElementSection(reader) => {
                for element in reader {
                    self.elements.push(element?);
                }
            }
            Payload::DataSection(reader) => {
                for data in reader {
                    let data = data?;
                    let active = match data.kind {
                        DataKind::Active {
                            memory_index,
                            offset_expr,
                        } => Some((memory_index, offset_expr)),
                        DataKind::Passive => None,
                    };
                    self.data.push(DataSegment {
                        active,
                        bytes: data.data,
                    });
                }
            }
            Payload::CodeSectionEntry(body) => self.bodies.push(body),
            Payload::CustomSection(custom) if custom.name() == "name" => {
                self.name_section =
                    Some(custom.data_offset()..custom.data_offset() + custom.data().len());
            }
            _ => {}
        }
        Ok(())
    }

    fn read_import(&mut self, import: Import<'a>) {
        match import.ty {
            TypeRef::Func(ty) | TypeRef::FuncExact(ty) => {
                self.functions.push(ty);
                self.imported_functions += 1;
            }
            TypeRef::Table(ty) => {
                self.tables.push(ty);
                self.imported_tables += 1;
            }
            TypeRef::Memory(ty) => {
                self.memories.push(ty);
                self.imported_memories += 1;
            }
            TypeRef::Global(ty) => {
                self.globals.push(ty);
            }
            TypeRef::Tag(ty) => self.tags.push(ty.func_type_idx),
        }
        self.imports.push(import);
    }

    /// The type of function `index`.
    pub(crate) fn function_type(&self, index: u32) -> &FuncType {
        &self.types[self.functions[index as usize] as usize]
    }

    /// The body of function `index`, which must be a defined one.
    pub(crate) fn body(&self, index: u32) -> &FunctionBody<'a> {
        &self.bodies[(index - self.imported_functions) as usize]
    }

    /// Whether an export of what is made of the module is one that was added, for its host and its clones.
    pub fn is_added_export(&self, name: &str) -> bool {
        name.starts_with(&self.prefix)
    }

    /// How long the module is, in bytes.
    pub fn byte_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// How many bytes of code function `index` has, none if it is imported or does not exist.
    pub fn code_bytes(&self, index: u32) -> u64 {
        let defined = index.checked_sub(self.imported_functions);
        let body = defined.and_then(|defined| self.bodies.get(defined as usize));
        body.map_or(0, |body| body.range().len() as u64)
    }

    /// Whether function `index` is imported.
    pub fn is_imported_function(&self, index: u32) -> bool {
        index < self.imported_functions
    }

    /// A validator for the body of function `index`.
    pub(crate) fn function_validator(
        &self,
        index: u32,
    ) -> Result<FuncToValidate<ValidatorResources>> {
        match &self.validated()?.resources {
            Some(resources)
                if index >= self.imported_functions && (index as usize) < self.functions.len() =>
            {
                Ok(FuncToValidate {
                    resources: resources.clone(),
                    index,
                    ty: self.functions[index as usize],
                    features: guest_features(),
                })
            }
            _ => Err(Error::NoFunction { function: index }),
        }
    }

    /// The index in this module of a canonical type, of which only somebody knows who has validated a function.
    pub(crate) fn type_index(&self, index: UnpackedIndex) -> u32 {
        match index {
            UnpackedIndex::Module(index) => index,
            UnpackedIndex::RecGroup(_) => {
                unreachable!("types outside the type section name no recursion group")
            }
            UnpackedIndex::Id(id) => {
                let validated = self.validated.get();
                validated
                    .expect("a function was validated")
                    .type_index_of_id[&id]
            }
        }
    }

    /// Where this module's control memory keeps its parts.
    pub fn control_layout(&self) -> ControlLayout {
        ControlLayout::new(self.data.len() as u32, self.elements.len() as u32)
    }

    /// The imports, in order.
    pub fn imports(&self) -> &[Import<'a>] {
        &self.imports
    }

    /// The exports of the original module.
    pub fn exports(&self) -> &[Export<'a>] {
        &self.exports
    }

    /// The types of all memories, imported ones first.
    pub fn memories(&self) -> &[MemoryType] {
        &self.memories
    }

    /// The number of memories that are imported.
    pub fn imported_memories(&self) -> u32 {
        self.imported_memories
    }

    /// The types of all tables, imported ones first.
    pub fn tables(&self) -> &[TableType] {
        &self.tables
    }

    /// The types of all globals, imported ones first.
    pub fn globals(&self) -> &[GlobalType] {
        &self.globals
    }

    /// The number of tags.
    pub fn tag_count(&self) -> u32 {
        self.tags.len() as u32
    }

    /// The number of functions, imported ones included.
    pub fn function_count(&self) -> u32 {
        self.functions.len() as u32
    }

    /// Parameter and result types of function `index`, if there is one.
    pub fn signature(&self, index: u32) -> Option<(&[ValType], &[ValType])> {
        let ty = self
            .types
            .get(*self.functions.get(index as usize)? as usize)?;
        Some((ty.params(), ty.results()))
    }

    /// The start function.
    pub fn start(&self) -> Option<u32> {
        self.start
    }

    /// The data segments.
    pub fn data(&self) -> &[DataSegment<'a>] {
        &self.data
    }

    /// The number of element segments.
    pub fn element_count(&self) -> u32 {
        self.elements.len() as u32
    }

    /// Functions that a function reference can point to: named by an element segment or exported, plus those in
    /// `referenced`, which is what function bodies mention. Ascending, without repetition.
    pub(crate) fn referenced_functions(
        &self,
        referenced: impl Iterator<Item = u32>,
    ) -> Result<Vec<u32>> {
        let mut functions: Vec<u32> = referenced.collect();
        for element in &self.elements {
            match &element.items {
                ElementItems::Functions(items) => {
                    for function in items.clone() {
                        functions.push(function?);
                    }
                }
                ElementItems::Expressions(_, items) => {
                    for expression in items.clone() {
                        collect_referenced(&expression?, &mut functions)?;
                    }
                }
            }
        }
        for (_, range) in self.sections.iter().filter(|(id, _)| *id == 6) {
            let reader = wasmparser::BinaryReader::new(&self.bytes[range.clone()], range.start);
            for global in wasmparser::GlobalSectionReader::new(reader)? {
                collect_referenced(&global?.init_expr, &mut functions)?;
            }
        }
        for (_, range) in self.sections.iter().filter(|(id, _)| *id == 4) {
            let reader = wasmparser::BinaryReader::new(&self.bytes[range.clone()], range.start);
            for table in wasmparser::TableSectionReader::new(reader)? {
                if let wasmparser::TableInit::Expr(expression) = table?.init {
                    collect_referenced(&expression, &mut functions)?;
                }
            }
        }
        let exported = self
            .exports
            .iter()
            .filter(|export| matches!(export.kind, ExternalKind::Func));
        functions.extend(exported.map(|export| export.index));
        functions.sort_unstable();
        functions.dedup();
        Ok(functions)
    }
}

/// Adds the functions that a constant expression refers to.
fn collect_referenced(expression: &ConstExpr<'_>, functions: &mut Vec<u32>) -> Result<()> {
    for operator in expression.get_operators_reader() {
        if let Operator::RefFunc { function_index } = operator? {
            functions.push(function_index);
        }
    }
    Ok(())
}

/// Tells whether bytes that were refused are a valid module that uses a feature we refuse.
pub(crate) fn explain(bytes: &[u8], error: Error) -> Error {
    let Error::Invalid(invalid) = &error else {
        return error;
    };
    let valid = |features| {
        Validator::new_with_features(features)
            .validate_all(bytes)
            .is_ok()
    };
    if !valid(known_features()) {
        return error;
    }
    let feature = format!(
        "a proposal that is not part of WebAssembly 3 ({})",
        invalid.message()
    );
    Error::Unsupported { feature }
}
