//! Puts the rewritten module together.

use crate::bridges;
use crate::control::CONTROL_PAGES;
use crate::emit::{self, Body, Kind, Surroundings, main_function};
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::function_names;
use crate::helpers;
use crate::indices::Indices;
use crate::module::Module;
use crate::names::Name;
use crate::plan::{Options, Plan};
use crate::scan::{Summary, scan};
use crate::staging::{STAGED_MAX, Staged, Staging};
use crate::types::{self, ValueClass};
use rayon::prelude::*;
use std::collections::HashSet;
use wasm_encoder as enc;
use wasm_encoder::reencode::Reencode;
use wasmparser::{BinaryReader, ExternalKind};

/// A module that can be suspended, and what was found out about it.
pub struct Rewritten {
    /// The module, in the binary format. It is plain WebAssembly; see the crate's documentation for what its host owes it.
    pub wasm: Vec<u8>,
    /// What making clones needs to know.
    pub facts: Facts,
}

/// Section ids of the binary format.
mod section {
    pub const IMPORT: u8 = 2;
    pub const TABLE: u8 = 4;
    pub const GLOBAL: u8 = 6;
    pub const ELEMENT: u8 = 9;
    pub const TAG: u8 = 13;
}

/// Makes `module` suspendable.
///
/// # Errors
///
/// If a function body is invalid, uses what cannot be suspended, or would become larger than engines accept.
pub fn rewrite(module: &Module<'_>, options: Options) -> Result<Rewritten> {
    module.validated()?;
    let summaries = scan(module).map_err(|error| crate::module::explain(module.bytes, error))?;
    let plan = Plan::new(module, &summaries, options);
    let called = bridges::called_by_clones(module, &plan, &summaries);
    let facts = Facts::new(module, plan, &summaries, &called)?;
    refuse_exception_results(module)?;
    let indices = Indices::new(module, &facts);
    let builder = Builder {
        module,
        facts: &facts,
        indices: &indices,
    };
    let wasm = builder.build(&summaries, &called)?;
    Ok(Rewritten { wasm, facts })
}

/// A function that unwinds must return something, and there is no way to make up an exception.
fn refuse_exception_results(module: &Module<'_>) -> Result<()> {
    let non_null_exception = |ty: &wasmparser::ValType| {
        types::is_non_null(types::encode(module, *ty))
            && ValueClass::of(*ty) == ValueClass::Exception
    };
    if module
        .types
        .iter()
        .any(|ty| ty.results().iter().any(non_null_exception))
    {
        return Err(Error::Unsupported {
            feature: "a function that returns an exception reference without null".into(),
        });
    }
    Ok(())
}

struct Builder<'b, 'a> {
    module: &'b Module<'a>,
    facts: &'b Facts,
    indices: &'b Indices,
}

/// Function indices in constant expressions, element segments and exports become those of the rewritten module.
struct FunctionIndices<'b, 'a>(&'b Module<'a>);

impl Reencode for FunctionIndices<'_, '_> {
    type Error = std::convert::Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, enc::reencode::Error> {
        Ok(main_function(self.0, function))
    }
}

/// Re-encoding fails only for what the validator refuses.
fn reencoded<T>(result: Result<T, enc::reencode::Error>) -> Result<T> {
    result.map_err(|error| match error {
        enc::reencode::Error::ParseError(error) => Error::Invalid(error),
        other => Error::Unsupported {
            feature: format!("something that cannot be encoded ({other})"),
        },
    })
}

impl<'a> Builder<'_, 'a> {
    /// The module, given the summaries of the original's functions and those that clones may call.
    fn build(&self, summaries: &[Summary], called: &[u32]) -> Result<Vec<u8>> {
        let bodies = self.bodies()?;
        let mut output = enc::Module::new();
        let types = self.indices.types.section(self.module);
        output.section(&enc::RawSection {
            id: enc::SectionId::Type as u8,
            data: &types,
        });
        for (_, range) in self.sections(section::IMPORT) {
            output.section(&enc::RawSection {
                id: section::IMPORT,
                data: &self.module.bytes[range],
            });
        }
        output.section(&self.functions());
        output.section(&self.tables()?);
        output.section(&self.memories());
        for (_, range) in self.sections(section::TAG) {
            output.section(&enc::RawSection {
                id: section::TAG,
                data: &self.module.bytes[range],
            });
        }
        let mut globals = enc::GlobalSection::new();
        for (_, range) in self.sections(section::GLOBAL) {
            let reader = wasmparser::GlobalSectionReader::new(self.reader(range))?;
            reencoded(FunctionIndices(self.module).parse_global_section(&mut globals, reader))?;
        }
        add_staging_globals(&mut globals);
        output.section(&globals);
        output.section(&self.exports(called));
        output.section(&self.elements()?);
        // Every instance has some state for each data segment, and programs can have ten thousands of them.
        let has_data = self.module.data.iter().any(|data| data.active.is_none())
            || summaries.iter().any(|summary| summary.names_data);
        if has_data {
            output.section(&enc::DataCountSection {
                count: self.module.data.len() as u32,
            });
        }
        let hints = self.hints(&bodies);
        if !hints.is_empty() {
            output.section(&hints);
        }
        output.section(&self.code(&bodies)?);
        if has_data {
            output.section(&self.data());
        }
        let bridges = &self.indices.bridges;
        let first = bridges.first().map_or(0, |bridge| bridge.function);
        let bridges = first..first + bridges.len() as u32;
        if let Some(names) = function_names::with_bridges(self.module, bridges) {
            output.section(&enc::CustomSection {
                name: "name".into(),
                data: names,
            });
        }
        Ok(output.finish())
    }

    fn sections(&self, id: u8) -> impl Iterator<Item = (u8, std::ops::Range<usize>)> {
        self.module
            .sections
            .iter()
            .filter(move |(other, _)| *other == id)
            .cloned()
    }

    fn reader(&self, range: std::ops::Range<usize>) -> BinaryReader<'a> {
        BinaryReader::new(&self.module.bytes[range.clone()], range.start)
    }

    /// Rewritten bodies; none where the original is copied.
    fn bodies(&self) -> Result<Vec<Option<Body>>> {
        let surroundings = Surroundings {
            module: self.module,
            plan: &self.facts.plan,
            types: &self.indices.types,
            control_memory: self.indices.control_memory,
            request_memory: self.indices.request_memory,
            safepoint: self.indices.safepoint,
            staging: Some(Staging {
                globals: self.indices.staging,
                push_frame: self.indices.push_frame,
            }),
            save_reference: self.indices.savers,
            saved_references: self.indices.saved_references,
            dummies: self.indices.dummy_map(),
            kind: Kind::Main,
        };
        let first = self.module.imported_functions;
        (first..self.module.function_count())
            .into_par_iter()
            .map(|function| {
                let rewritten = self.facts.plan.decision(function).rewritten;
                rewritten
                    .then(|| emit::rewrite(&surroundings, function))
                    .transpose()
            })
            .collect()
    }

    fn functions(&self) -> enc::FunctionSection {
        let (module, indices) = (self.module, self.indices);
        let mut section = enc::FunctionSection::new();
        let imported = module.imported_functions as usize;
        for ty in module.functions[imported..]
            .iter()
            .chain(&module.functions[..imported])
        {
            section.function(*ty);
        }
        section.function(indices.safepoint_type);
        section.function(indices.push_frame_type);
        for (saver, ty) in indices.savers.iter().zip(indices.saver_types) {
            if saver.is_some() {
                section.function(ty);
            }
        }
        section.function(indices.hook_type);
        for ty in indices.dummies.keys() {
            section.function(*ty);
        }
        for operation in indices.segments.keys() {
            section.function(indices.segment_type(module, *operation));
        }
        for segment in indices.data_offsets.keys() {
            section.function(indices.data_offset_type(module, *segment));
        }
        for bridge in &indices.bridges {
            section.function(bridge.ty);
        }
        section
    }

    fn tables(&self) -> Result<enc::TableSection> {
        let mut section = enc::TableSection::new();
        for (_, range) in self.sections(section::TABLE) {
            let reader = wasmparser::TableSectionReader::new(self.reader(range))?;
            reencoded(FunctionIndices(self.module).parse_table_section(&mut section, reader))?;
        }
        for (_, ty) in added_tables(self.facts) {
            section.table(ty);
        }
        Ok(section)
    }

    fn memories(&self) -> enc::MemorySection {
        let mut section = enc::MemorySection::new();
        for memory in &self.module.memories[self.module.imported_memories as usize..] {
            section.memory(enc::MemoryType {
                minimum: memory.initial,
                maximum: memory.maximum,
                memory64: memory.memory64,
                shared: memory.shared,
                page_size_log2: memory.page_size_log2,
            });
        }
        for _ in [self.indices.control_memory, self.indices.request_memory] {
            section.memory(control_memory_type());
        }
        section
    }

    fn exports(&self, called: &[u32]) -> enc::ExportSection {
        let (module, indices) = (self.module, self.indices);
        let mut section = enc::ExportSection::new();
        for export in &module.exports {
            let (kind, index) = match export.kind {
                ExternalKind::Func | ExternalKind::FuncExact => {
                    (enc::ExportKind::Func, main_function(module, export.index))
                }
                ExternalKind::Table => (enc::ExportKind::Table, export.index),
                ExternalKind::Memory => (enc::ExportKind::Memory, export.index),
                ExternalKind::Global => (enc::ExportKind::Global, export.index),
                ExternalKind::Tag => (enc::ExportKind::Tag, export.index),
            };
            section.export(export.name, kind, index);
        }
        let mut add = |name: Name, kind: enc::ExportKind, index: u32| {
            section.export(&name.in_module(module), kind, index);
        };
        add(
            Name::Control,
            enc::ExportKind::Memory,
            indices.control_memory,
        );
        add(
            Name::Request,
            enc::ExportKind::Memory,
            indices.request_memory,
        );
        for (table, (name, _)) in (module.tables.len() as u32..).zip(added_tables(self.facts)) {
            add(name, enc::ExportKind::Table, table);
        }
        for index in 0..module.memories.len() as u32 {
            add(Name::Memory(index), enc::ExportKind::Memory, index);
        }
        for index in 0..module.tables.len() as u32 {
            add(Name::Table(index), enc::ExportKind::Table, index);
        }
        for index in 0..module.globals.len() as u32 {
            add(Name::Global(index), enc::ExportKind::Global, index);
        }
        for index in 0..module.tags.len() as u32 {
            add(Name::Tag(index), enc::ExportKind::Tag, index);
        }
        add(Name::Safepoint, enc::ExportKind::Func, indices.safepoint);
        add(Name::DropAgain, enc::ExportKind::Func, indices.drop_again);
        if let Some(start) = module.start {
            add(
                Name::Start,
                enc::ExportKind::Func,
                main_function(module, start),
            );
        }
        let helpers = indices
            .savers
            .iter()
            .flatten()
            .chain(indices.dummies.values())
            .chain(indices.segments.values());
        for helper in helpers {
            add(Name::Helper(*helper), enc::ExportKind::Func, *helper);
        }
        for (segment, function) in &indices.data_offsets {
            add(Name::DataOffset(*segment), enc::ExportKind::Func, *function);
        }
        for (number, bridge) in (0..).zip(&indices.bridges) {
            add(Name::Bridge(number), enc::ExportKind::Func, bridge.function);
        }
        for function in self.called_directly(called) {
            add(Name::Function(function), enc::ExportKind::Func, function);
        }
        section
    }

    /// Of the functions that clones may call those that they call themselves, by their indices here.
    fn called_directly(&self, called: &[u32]) -> impl Iterator<Item = u32> {
        let bridged: HashSet<u32> = self.facts.bridged.iter().copied().collect();
        called
            .iter()
            .filter(move |function| !bridged.contains(function))
            .map(|function| main_function(self.module, *function))
    }

    fn elements(&self) -> Result<enc::ElementSection> {
        let mut section = enc::ElementSection::new();
        for (_, range) in self.sections(section::ELEMENT) {
            let reader = wasmparser::ElementSectionReader::new(self.reader(range))?;
            reencoded(FunctionIndices(self.module).parse_element_section(&mut section, reader))?;
        }
        let referenced: Vec<u32> = self
            .facts
            .referenced
            .iter()
            .map(|function| main_function(self.module, *function))
            .collect();
        if !referenced.is_empty() {
            section.active(
                Some(self.indices.referenced_functions),
                &enc::ConstExpr::i32_const(0),
                enc::Elements::Functions(referenced.into()),
            );
        }
        Ok(section)
    }

    fn hints(&self, bodies: &[Option<Body>]) -> enc::BranchHints {
        let mut hints = enc::BranchHints::new();
        for (function, body) in (self.module.imported_functions..).zip(bodies) {
            let Some(body) = body else { continue };
            if !body.hints.is_empty() {
                let list = body.hints.iter().map(|(offset, likely)| enc::BranchHint {
                    branch_func_offset: *offset,
                    branch_hint_value: u32::from(*likely),
                });
                hints.function_hints(function, list.collect::<Vec<_>>());
            }
        }
        hints
    }

    fn code(&self, bodies: &[Option<Body>]) -> Result<enc::CodeSection> {
        let (module, indices) = (self.module, self.indices);
        let control = indices.control_memory;
        let mut section = enc::CodeSection::new();
        for (original, body) in module.bodies.iter().zip(bodies) {
            section.raw(
                body.as_ref()
                    .map_or(original.as_bytes(), |body| &body.bytes),
            );
        }
        let dummies = indices.dummy_map();
        for import in 0..module.imported_functions {
            let body = helpers::wrapper(
                module,
                control,
                indices.safepoint,
                indices.savers,
                import,
                &dummies,
            );
            section.raw(&body);
        }
        section.raw(&helpers::safepoint(
            control,
            indices.hooks,
            indices.hook_type,
        ));
        let staged = bodies.iter().flatten().map(|body| body.staged);
        section.raw(&helpers::push_frame(
            control,
            indices.staging,
            staged.fold(Staged::default(), Staged::max),
        ));
        let classes = [
            ValueClass::Function,
            ValueClass::Extern,
            ValueClass::Exception,
        ];
        for (class, table) in classes.into_iter().zip(indices.saved_references) {
            if let Some(table) = table {
                section.raw(&helpers::save_reference(control, class, table));
            }
        }
        section.raw(&helpers::drop_again(module, control));
        for _ in &indices.dummies {
            section.raw(&helpers::dummy());
        }
        for operation in indices.segments.keys() {
            section.raw(&helpers::segment_operation(module, control, *operation));
        }
        for segment in indices.data_offsets.keys() {
            if let Some(body) = helpers::data_offset(module, *segment)? {
                section.raw(&body);
            }
        }
        let functions = bridges::bridges(&self.facts.bridged);
        for (functions, bridge) in functions.zip(&indices.bridges) {
            section.raw(&bridges::bridge(module, functions, bridge.arguments));
        }
        Ok(section)
    }

    /// The data segments, if the module has any that code can name: active ones are empty, as the host lays out the initial memory, and a segment that has been
    /// applied counts as dropped.
    fn data(&self) -> enc::DataSection {
        let mut section = enc::DataSection::new();
        for data in &self.module.data {
            let bytes = if data.active.is_some() {
                &[]
            } else {
                data.bytes
            };
            section.passive(bytes.iter().copied());
        }
        section
    }
}

/// The globals in which values are staged.
fn add_staging_globals(globals: &mut enc::GlobalSection) {
    let mut add = |count: u32, val_type, zero| {
        for _ in 0..count {
            let ty = enc::GlobalType {
                val_type,
                mutable: true,
                shared: false,
            };
            globals.global(ty, &zero);
        }
    };
    add(
        STAGED_MAX.i32s,
        enc::ValType::I32,
        enc::ConstExpr::i32_const(0),
    );
    add(
        STAGED_MAX.i64s,
        enc::ValType::I64,
        enc::ConstExpr::i64_const(0),
    );
}

/// The type of the control memory, and of the request memory.
pub(crate) fn control_memory_type() -> enc::MemoryType {
    enc::MemoryType {
        minimum: CONTROL_PAGES,
        maximum: Some(CONTROL_PAGES),
        memory64: false,
        shared: false,
        page_size_log2: None,
    }
}

/// The tables that a rewritten module has behind the program's own.
pub(crate) fn added_tables(facts: &Facts) -> Vec<(Name, enc::TableType)> {
    let table = |element_type: enc::RefType, minimum: u64, maximum: Option<u64>| enc::TableType {
        element_type,
        table64: false,
        minimum,
        maximum,
        shared: false,
    };
    let hooks = u64::from(helpers::hooks::COUNT);
    let referenced = facts.referenced.len() as u64;
    let mut tables = vec![
        (
            Name::Hooks,
            table(enc::RefType::FUNCREF, hooks, Some(hooks)),
        ),
        (
            Name::ReferencedFunctions,
            table(enc::RefType::FUNCREF, referenced, Some(referenced)),
        ),
    ];
    let saved = [
        (Name::SavedFunctions, enc::RefType::FUNCREF),
        (Name::SavedExterns, enc::RefType::EXTERNREF),
        (Name::SavedExceptions, enc::RefType::EXNREF),
    ];
    for ((name, ty), can_be) in saved.into_iter().zip(facts.references) {
        if can_be {
            tables.push((name, table(ty, 0, None)));
        }
    }
    tables
}
