//! Adds a function to a module that calls others of it and writes down, in a memory of its own, what it sees.
//!
//! One call of that function exercises a whole module, keeps its state from call to call, and leaves a log that any
//! engine shows in the same way, whatever the types of the results were and however the run ended.
//!
//! Each call is a *step*, and the driver is a loop over a table of functions that make the steps. All calls of one function
//! are made by one function, which reads the arguments from the log's memory: so the call stacks at stops have the same few
//! points of the driver in them, and little is compiled to resume them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::ops::Range;
use wasmparser::{
    AbstractHeapType, CompositeInnerType, HeapType, Parser, Payload, UnpackedIndex, ValType,
};
use wsnap_instrument::{Module, ValueClass};

/// The export that runs everything.
pub const DRIVER: &str = "driver: run";
/// How many bytes of the log a value takes.
const SLOT: u32 = 16;
/// What stands in the log for a call that threw an exception.
pub const THREW: u32 = 0xE_5CA_9ED;
/// How many types of functions are told apart when tables are looked at.
const FUNCTION_TYPES: usize = 12;

/// A call for the driver to make.
#[derive(Clone, Debug)]
pub struct DriverCall {
    /// The function's index.
    pub function: u32,
    /// The bits of its arguments; of references there is only null.
    pub arguments: Vec<u128>,
}

/// A module with a driver.
#[derive(Clone, Debug)]
pub struct Driven {
    /// The module, in binary format.
    pub wasm: Vec<u8>,
    /// How many steps there are. The last one looks at the tables.
    pub steps: u32,
    /// How many memories there are, the log included, which is the last.
    pub memories: usize,
}

impl Driven {
    /// All steps.
    #[must_use]
    pub fn all(&self) -> Range<u32> {
        0..self.steps
    }
}

/// The export of memory `index` of a module with a driver.
#[must_use]
pub fn memory_export(index: usize) -> String {
    format!("driver: memory {index}")
}

/// Adds the driver to a module, whose text `edit` may change before. Each step begins with the instructions `before`.
///
/// # Panics
///
/// When the module is not valid, or `edit` does not leave a module that the driver fits.
#[must_use]
pub fn with_driver(
    wasm: &[u8],
    edit: impl FnOnce(String) -> String,
    before: &str,
    calls: &[DriverCall],
) -> Driven {
    let module = Module::parse(wasm).expect("only modules that are not refused are driven");
    let text = edit(wasmprinter::print_bytes(wasm).expect("a valid module can be printed"));
    let body = text
        .trim_end()
        .strip_suffix(')')
        .expect("a module ends in a parenthesis");
    let (inputs, stride) = step_bytes(&module, calls);
    let mut driver = Driver {
        module: &module,
        text: String::new(),
        slot: 0,
        stride,
        inputs,
    };
    driver.write(before, calls, &function_types(wasm));
    let text = driver.text;
    Driven {
        wasm: wat::parse_str(format!("{body}\n{text})")).expect("the driver fits the module"),
        steps: calls.len() as u32 + 1,
        memories: module.memories().len() + 1,
    }
}

/// The indices of the first types that functions have.
fn function_types(wasm: &[u8]) -> Vec<u32> {
    let mut found = Vec::new();
    let mut index = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        let Ok(Payload::TypeSection(groups)) = payload else {
            continue;
        };
        for ty in groups
            .into_iter()
            .filter_map(Result::ok)
            .flat_map(|group| group.into_types())
        {
            if matches!(ty.composite_type.inner, CompositeInnerType::Func(_)) {
                found.push(index);
            }
            index += 1;
        }
    }
    found.truncate(FUNCTION_TYPES);
    found
}

/// How many bytes of the log a step takes: for arguments, and in all.
fn step_bytes(module: &Module<'_>, calls: &[DriverCall]) -> (u32, u32) {
    let arguments = calls.iter().map(|call| call.arguments.len()).max();
    let results = calls
        .iter()
        .filter_map(|call| Some(module.signature(call.function)?.1.len()))
        .max();
    let inputs = arguments.unwrap_or(0);
    let outputs = results.unwrap_or(0).max(1) + module.globals().len() + module.tables().len();
    (inputs as u32 * SLOT, (inputs + outputs) as u32 * SLOT)
}

struct Driver<'m, 'a> {
    module: &'m Module<'a>,
    text: String,
    /// Where in a step's part of the log the next value goes.
    slot: u32,
    /// How many bytes of the log each step has.
    stride: u32,
    /// How many of these are for arguments.
    inputs: u32,
}

/// The name of the local that holds a result of a class, and its type.
fn local(class: ValueClass, index: usize) -> (String, &'static str) {
    let ty = match class {
        ValueClass::I64 => "i64",
        ValueClass::F32 => "f32",
        ValueClass::F64 => "f64",
        ValueClass::V128 => "v128",
        // Of a reference only whether it is null is kept.
        ValueClass::I32 | ValueClass::Function | ValueClass::Extern | ValueClass::Exception => {
            "i32"
        }
    };
    (format!("$driver-{ty}-{index}"), ty)
}

fn is_reference(class: ValueClass) -> bool {
    matches!(
        class,
        ValueClass::Function | ValueClass::Extern | ValueClass::Exception
    )
}

/// The text of a heap type.
fn heap_type(ty: HeapType) -> Option<String> {
    use AbstractHeapType as Abstract;
    Some(match ty {
        HeapType::Abstract { ty, .. } => match ty {
            Abstract::Func => "func".into(),
            Abstract::NoFunc => "nofunc".into(),
            Abstract::Extern => "extern".into(),
            Abstract::NoExtern => "noextern".into(),
            Abstract::Exn => "exn".into(),
            Abstract::NoExn => "noexn".into(),
            _ => return None,
        },
        HeapType::Concrete(UnpackedIndex::Module(index)) => index.to_string(),
        HeapType::Concrete(_) | HeapType::Exact(_) => return None,
    })
}

/// The instructions that give a value of a type: its bits, or null. None for references that cannot be null.
#[must_use]
pub fn constant(ty: ValType, bits: u128) -> Option<String> {
    Some(match ty {
        ValType::I32 => format!("i32.const {}", bits as i32),
        ValType::I64 => format!("i64.const {}", bits as i64),
        ValType::F32 => format!("i32.const {} f32.reinterpret_i32", bits as i32),
        ValType::F64 => format!("i64.const {} f64.reinterpret_i64", bits as i64),
        ValType::V128 => {
            let bytes = bits.to_le_bytes().map(|byte| byte.to_string());
            format!("v128.const i8x16 {}", bytes.join(" "))
        }
        ValType::Ref(reference) if reference.is_nullable() => {
            format!("ref.null {}", heap_type(reference.heap_type())?)
        }
        ValType::Ref(_) => return None,
    })
}

impl Driver<'_, '_> {
    fn line(&mut self, line: &str) {
        writeln!(self.text, "    {line}").expect("a String takes everything");
    }

    fn write(&mut self, before: &str, calls: &[DriverCall], function_types: &[u32]) {
        let steps = calls.len() as u32 + 1;
        let tables = self.module.tables().len() as u32;
        let pages = (calls.len() as u32 * self.stride + tables * SLOT)
            .div_ceil(65536)
            .max(1);
        self.line(&format!("(memory $driver-log {pages} {pages})"));
        for index in 0..=self.module.memories().len() {
            let name = memory_export(index);
            self.line(&format!("(export \"{name}\" (memory {index}))"));
        }
        self.line("(type $driver-step (func (param i32)))");
        let functions: BTreeSet<u32> = calls.iter().map(|call| call.function).collect();
        for function in functions {
            self.step(function, before);
        }
        for (step, call) in calls.iter().enumerate() {
            self.arguments(step as u32, call);
        }
        self.last_step(steps - 1, function_types);
        let functions = calls.iter().map(|call| call.function.to_string());
        let names: Vec<String> = functions
            .chain(["last".to_owned()])
            .map(|name| format!("$driver-step-{name}"))
            .collect();
        let names = names.join(" ");
        self.line(&format!("(table $driver-steps {steps} {steps} funcref)"));
        self.line(&format!(
            "(elem (table $driver-steps) (i32.const 0) func {names})"
        ));
        self.line(&format!(
            "(func $driver-run (export \"{DRIVER}\") (param $step i32) (param $end i32)
               block $done
                 loop $next
                   local.get $step local.get $end i32.ge_u br_if $done
                   local.get $step
                   local.get $step call_indirect $driver-steps (type $driver-step)
                   local.get $step i32.const 1 i32.add local.set $step
                   br $next
                 end
               end)"
        ));
    }

    /// Puts the arguments of a call where its step reads them.
    fn arguments(&mut self, step: u32, call: &DriverCall) {
        if call.arguments.iter().all(|bits| *bits == 0) {
            return;
        }
        let mut bytes = String::new();
        for byte in call.arguments.iter().flat_map(|bits| bits.to_le_bytes()) {
            write!(bytes, "\\{byte:02x}").expect("a String takes everything");
        }
        let address = step * self.stride;
        self.line(&format!(
            "(data (memory $driver-log) (i32.const {address}) \"{bytes}\")"
        ));
    }

    /// The function that calls one function of the module, and logs what can be seen then.
    fn step(&mut self, function: u32, before: &str) {
        self.line(&format!(
            "(func $driver-step-{function} (type $driver-step) (param $step i32)"
        ));
        for (index, class) in self.results(function).into_iter().enumerate() {
            let (local, ty) = local(class, index);
            self.line(&format!("(local {local} {ty})"));
        }
        let stride = self.stride;
        self.line(&format!(
            "local.get $step i32.const {stride} i32.mul local.set $step"
        ));
        self.line(before);
        self.slot = self.inputs;
        self.call(function);
        self.observe();
        self.line(")");
    }

    fn last_step(&mut self, steps: u32, function_types: &[u32]) {
        self.line("(func $driver-step-last (type $driver-step) (param $step i32)");
        self.line("(local $at i64) (local $hash i64)");
        let address = steps * self.stride;
        self.line(&format!("i32.const {address} local.set $step"));
        self.slot = 0;
        for index in 0..self.module.tables().len() {
            self.observe_table(index, function_types);
        }
        self.line(")");
    }

    fn results(&self, function: u32) -> Vec<ValueClass> {
        let results = self
            .module
            .signature(function)
            .map_or(&[][..], |(_, results)| results);
        results.iter().map(|ty| ValueClass::of(*ty)).collect()
    }

    /// Calls, and logs the results or that there are none.
    fn call(&mut self, function: u32) {
        let results = self.results(function);
        let params = self
            .module
            .signature(function)
            .map_or(&[][..], |(params, _)| params);
        self.line("block $driver-done");
        self.line("block $driver-caught");
        self.line("try_table (catch_all $driver-caught)");
        for (index, ty) in params.iter().enumerate() {
            let class = ValueClass::of(*ty);
            let argument = if is_reference(class) {
                constant(*ty, 0).expect("only calls that can be made are given")
            } else {
                let ty = local(class, 0).1;
                let offset = index as u32 * SLOT;
                format!("local.get $step {ty}.load $driver-log offset={offset}")
            };
            self.line(&argument);
        }
        self.line(&format!("call {function}"));
        for (index, class) in results.iter().enumerate().rev() {
            if is_reference(*class) {
                self.line("ref.is_null");
            }
            self.line(&format!("local.set {}", local(*class, index).0));
        }
        for (index, class) in results.iter().enumerate() {
            let (local, ty) = local(*class, index);
            self.store(ty, &format!("local.get {local}"));
        }
        self.line("br $driver-done");
        self.line("end");
        self.line("end");
        if results.is_empty() {
            self.slot += SLOT;
        }
        let offset = self.slot - SLOT;
        self.line(&format!(
            "local.get $step i32.const {THREW} i32.store $driver-log offset={offset}"
        ));
        self.line("end");
    }

    fn store(&mut self, ty: &str, value: &str) {
        let offset = self.slot;
        self.line(&format!(
            "local.get $step {value} {ty}.store $driver-log offset={offset}"
        ));
        self.slot += SLOT;
    }

    /// Logs the globals, and the sizes of the tables.
    fn observe(&mut self) {
        for (index, global) in self.module.globals().iter().enumerate() {
            let class = ValueClass::of(global.content_type);
            let null = if is_reference(class) {
                "ref.is_null"
            } else {
                ""
            };
            self.store(local(class, 0).1, &format!("global.get {index} {null}"));
        }
        for (index, table) in self.module.tables().iter().enumerate() {
            let ty = if table.table64 { "i64" } else { "i32" };
            self.store(ty, &format!("table.size {index}"));
        }
    }

    /// Logs a number that follows from all elements of a table: which are null, and of which type the functions are.
    fn observe_table(&mut self, index: usize, function_types: &[u32]) {
        let table = &self.module.tables()[index];
        let (at, size) = if table.table64 {
            ("local.get $at", "")
        } else {
            ("local.get $at i32.wrap_i64", "i64.extend_i32_u")
        };
        let element = format!("{at} table.get {index}");
        let mut code = format!("{element} ref.is_null i64.extend_i32_u");
        if ValueClass::of(table.element_type.into()) == ValueClass::Function {
            for ty in function_types {
                code += &format!(
                    " i64.const 2 i64.mul {element} ref.test (ref {ty}) i64.extend_i32_u i64.add"
                );
            }
        }
        self.line(&format!(
            "i64.const 0 local.set $at
             i64.const 7 local.set $hash
             block $done
               loop $next
                 local.get $at table.size {index} {size} i64.ge_u br_if $done
                 local.get $hash i64.const 31 i64.mul
                 {code} i64.add local.set $hash
                 local.get $at i64.const 1 i64.add local.set $at
                 br $next
               end
             end"
        ));
        self.store("i64", "local.get $hash");
    }
}
