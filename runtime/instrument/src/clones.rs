//! Modules of resume clones: made for the frames at hand, they import everything else from the rewritten module.

use crate::bridges;
use crate::control::{RESTORE_HEADER_BYTES, RESTORE_POINTER};
use crate::emit::{self, CloneIndices, Kind, Surroundings, main_function};
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::function_names;
use crate::helpers;
use crate::indices::{Bridge, Indices};
use crate::module::Module;
use crate::names::Name;
use crate::points::Point;
use crate::types::{self, ValueClass};
use std::collections::{BTreeSet, HashMap};
use wasm_encoder as enc;
use wasmparser::Operator;

/// A function with activations to resume, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CloneRequest {
    /// The function's index. An imported one stands for a call of the host that is made again.
    pub function: u32,
    /// The points at which the clone can be entered; none for an imported function.
    pub points: Vec<Point>,
}

/// A module of clones.
pub struct Clones {
    /// The module, in the binary format. It exports clone `n` of the requests as [`Name::Clone`]`(n)`.
    pub wasm: Vec<u8>,
    /// Its imports in order, all from the rewritten module's exports.
    pub imports: Vec<Name>,
}

/// Under which module name a module of clones imports.
const MAIN: &str = "main";

/// Makes clones as requested. A frame to restore names its clone by its place among `requests`, and the point by its
/// place in the request.
///
/// # Errors
///
/// If a function or a point does not exist.
pub fn clones(module: &Module<'_>, facts: &Facts, requests: &[CloneRequest]) -> Result<Clones> {
    module.validated()?;
    let indices = Indices::new(module, facts);
    let mut maker = Maker {
        module,
        facts,
        indices: &indices,
        imports: Vec::new(),
        section: enc::ImportSection::new(),
        functions: HashMap::new(),
        across: Vec::new(),
    };
    maker.import_state()?;
    maker.import_functions(requests)?;
    maker.build(requests)
}

struct Maker<'m, 'a> {
    module: &'m Module<'a>,
    facts: &'m Facts,
    indices: &'m Indices,
    imports: Vec<Name>,
    section: enc::ImportSection,
    /// Index here of each function of the rewritten module that is called.
    functions: HashMap<u32, u32>,
    /// What is called through bridges. For each there is a function here that does so, behind the clones.
    across: Vec<Across>,
}

/// A function of the program that is called through a bridge.
struct Across {
    function: u32,
    bridge: Bridge,
    /// Under which number the bridge has it.
    number: u32,
}

impl Maker<'_, '_> {
    fn import(&mut self, name: Name, ty: impl Into<enc::EntityType>) {
        self.section
            .import(MAIN, &name.in_module(self.module), ty.into());
        self.imports.push(name);
    }

    /// Memories, tables, globals and tags, all of them, so that they have the indices of the rewritten module.
    fn import_state(&mut self) -> Result<()> {
        let module = self.module;
        for (index, memory) in (0..).zip(&module.memories) {
            let ty = enc::MemoryType {
                minimum: 0,
                maximum: memory.maximum,
                memory64: memory.memory64,
                shared: false,
                page_size_log2: memory.page_size_log2,
            };
            self.import(Name::Memory(index), ty);
        }
        for name in [Name::Control, Name::Request] {
            self.import(name, crate::rewrite::control_memory_type());
        }
        for (index, table) in (0..).zip(&module.tables) {
            let ty = enc::TableType {
                element_type: types::encode_ref(module, table.element_type),
                table64: table.table64,
                minimum: 0,
                maximum: table.maximum,
                shared: false,
            };
            self.import(Name::Table(index), ty);
        }
        for (name, ty) in crate::rewrite::added_tables(self.facts) {
            self.import(name, ty);
        }
        for (index, global) in (0..).zip(&module.globals) {
            let ty = enc::GlobalType {
                val_type: types::encode(module, global.content_type),
                mutable: global.mutable,
                shared: false,
            };
            self.import(Name::Global(index), ty);
        }
        for (index, ty) in (0..).zip(&module.tags) {
            let ty = enc::TagType {
                kind: enc::TagKind::Exception,
                func_type_idx: *ty,
            };
            self.import(Name::Tag(index), ty);
        }
        Ok(())
    }

    fn import_function(&mut self, name: Name, in_main: u32, ty: u32) {
        let index = self.functions.len() as u32;
        if let std::collections::hash_map::Entry::Vacant(entry) = self.functions.entry(in_main) {
            entry.insert(index);
            self.import(name, enc::EntityType::Function(ty));
        }
    }

    /// The helpers, and the functions that clones call.
    fn import_functions(&mut self, requests: &[CloneRequest]) -> Result<()> {
        let (module, indices) = (self.module, self.indices);
        self.import_function(Name::Safepoint, indices.safepoint, indices.safepoint_type);
        for (saver, ty) in indices.savers.iter().zip(indices.saver_types) {
            if let Some(saver) = saver {
                self.import_function(Name::Helper(*saver), *saver, ty);
            }
        }
        for (ty, dummy) in &indices.dummies {
            self.import_function(Name::Helper(*dummy), *dummy, *ty);
        }
        for (operation, helper) in &indices.segments {
            self.import_function(
                Name::Helper(*helper),
                *helper,
                indices.segment_type(module, *operation),
            );
        }
        let mut called = BTreeSet::new();
        for request in requests {
            if request.function >= module.function_count() {
                return Err(Error::NoFunction {
                    function: request.function,
                });
            }
            if module.is_imported_function(request.function) {
                called.insert(request.function);
                continue;
            }
            let mut operators = module.body(request.function).get_operators_reader()?;
            while !operators.eof() {
                if let Operator::Call { function_index } | Operator::ReturnCall { function_index } =
                    operators.read()?
                {
                    called.insert(function_index);
                }
            }
        }
        for function in called {
            if let Some((bridge, number)) = bridges::find(module, &self.facts.bridged, function) {
                let name = Name::Bridge(bridge as u32);
                let bridge = indices.bridges[bridge];
                self.import_function(name, bridge.function, bridge.ty);
                self.across.push(Across {
                    function,
                    bridge,
                    number,
                });
                continue;
            }
            let in_main = main_function(module, function);
            self.import_function(
                Name::Function(in_main),
                in_main,
                module.functions[function as usize],
            );
        }
        Ok(())
    }

    fn build(mut self, requests: &[CloneRequest]) -> Result<Clones> {
        let (module, indices) = (self.module, self.indices);
        let imported_functions = self.functions.len() as u32;
        let behind_clones = imported_functions + requests.len() as u32;
        for (index, across) in (behind_clones..).zip(&self.across) {
            let in_main = main_function(module, across.function);
            self.functions.insert(in_main, index);
        }
        let clone_table =
            module.tables.len() as u32 + crate::rewrite::added_tables(self.facts).len() as u32;
        let referenced = (0..)
            .zip(&self.facts.referenced)
            .map(|(place, function)| (*function, place))
            .collect();
        let here = |function: u32| self.functions[&function];
        let surroundings = Surroundings {
            module,
            plan: &self.facts.plan,
            types: &indices.types,
            control_memory: indices.control_memory,
            request_memory: indices.request_memory,
            safepoint: here(indices.safepoint),
            staging: None,
            save_reference: indices.savers.map(|saver| saver.map(here)),
            saved_references: indices.saved_references,
            dummies: indices
                .dummies
                .iter()
                .map(|(ty, function)| (*ty, here(*function)))
                .collect(),
            kind: Kind::Clones(CloneIndices {
                functions: self.functions.clone(),
                referenced_table: indices.referenced_functions,
                referenced,
                segments: indices
                    .segments
                    .iter()
                    .map(|(operation, helper)| (*operation, here(*helper)))
                    .collect(),
                clones: clone_table,
            }),
        };

        let mut functions = enc::FunctionSection::new();
        let mut exports = enc::ExportSection::new();
        let mut hints = enc::BranchHints::new();
        let mut code = enc::CodeSection::new();
        for (place, request) in (0u32..).zip(requests) {
            let results = module.function_type(request.function).results();
            let results: Vec<_> = results
                .iter()
                .map(|ty| types::top(types::encode(module, *ty)))
                .collect();
            functions.function(indices.types.results(&results));
            let index = imported_functions + place;
            exports.export(
                &Name::Clone(place).in_module(module),
                enc::ExportKind::Func,
                index,
            );
            if module.is_imported_function(request.function) {
                let wrapper = here(main_function(module, request.function));
                code.raw(&call_again(module, indices, request.function, wrapper));
                continue;
            }
            let body = emit::clone(&surroundings, request.function, &request.points)?;
            let list = body.hints.iter().map(|(offset, likely)| enc::BranchHint {
                branch_func_offset: *offset,
                branch_hint_value: u32::from(*likely),
            });
            hints.function_hints(index, list.collect::<Vec<_>>());
            code.raw(&body.bytes);
        }
        for Across {
            function,
            bridge,
            number,
        } in &self.across
        {
            functions.function(module.functions[*function as usize]);
            let here = self.functions[&bridge.function];
            let body = bridges::across(module, *function, here, *number, bridge.arguments);
            code.raw(&body);
        }
        // References to these are taken by code that unwinds.
        for helper in [surroundings.safepoint]
            .iter()
            .chain(surroundings.dummies.values())
        {
            exports.export(
                &format!("referenced-{helper}"),
                enc::ExportKind::Func,
                *helper,
            );
        }
        let count = requests.len() as u64;
        let mut tables = enc::TableSection::new();
        tables.table(enc::TableType {
            element_type: enc::RefType::FUNCREF,
            table64: false,
            minimum: count,
            maximum: Some(count),
            shared: false,
        });
        let mut elements = enc::ElementSection::new();
        let list: Vec<u32> = (imported_functions..imported_functions + count as u32).collect();
        elements.active(
            Some(clone_table),
            &enc::ConstExpr::i32_const(0),
            enc::Elements::Functions(list.into()),
        );

        let mut output = enc::Module::new();
        let types = indices.types.section(module);
        output
            .section(&enc::RawSection {
                id: enc::SectionId::Type as u8,
                data: &types,
            })
            .section(&self.section)
            .section(&functions)
            .section(&tables);
        output.section(&exports).section(&elements);
        if !hints.is_empty() {
            output.section(&hints);
        }
        output.section(&code);
        output.section(&function_names::of_clones(
            module,
            imported_functions,
            requests,
            self.across.len(),
        ));
        Ok(Clones {
            wasm: output.finish(),
            imports: self.imports,
        })
    }
}

/// The clone that stands for a call of the host: takes the arguments from the frame and calls the wrapper, in whose
/// place it is when the host asks for suspension once more.
fn call_again(module: &Module<'_>, indices: &Indices, import: u32, wrapper: u32) -> Vec<u8> {
    let at = |offset| helpers::at(indices.control_memory, offset);
    let frame = 0;
    let mut function = enc::Function::new([(1, enc::ValType::I32)]);
    let mut sink = function.instructions();
    sink.i32_const(0)
        .i32_load(at(RESTORE_POINTER))
        .local_set(frame);
    sink.i32_const(0)
        .local_get(frame)
        .local_get(frame)
        .i32_load(at(8))
        .i32_add()
        .i32_store(at(RESTORE_POINTER));
    let mut offset = RESTORE_HEADER_BYTES;
    for param in module.function_type(import).params() {
        let class = ValueClass::of(*param);
        let ty = types::encode(module, *param);
        emit::load_value(
            &mut sink,
            frame,
            at(offset),
            class,
            types::nullable(ty),
            indices.saved_references,
        );
        if types::is_non_null(ty) {
            sink.ref_as_non_null();
        }
        offset += class.size_bytes();
    }
    sink.return_call(wrapper).end();
    function.into_raw_body()
}
