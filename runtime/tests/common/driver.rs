//! Adds a function to a module that calls others of it and writes down, in a memory of its own, what it sees.
//!
//! One call of that function exercises a whole module, keeps its state from call to call, and leaves a log that any
//! engine shows in the same way, whatever the types of the results were and however the run ended.

use std::fmt::Write;
use wsnap_instrument::{Module, ValueClass};

/// The export that runs everything.
pub const DRIVER: &str = "driver: run";
/// The driver does not call more functions than fit into its log.
const LOG_PAGES: u32 = 8;
const LOG_BYTES: u32 = LOG_PAGES * 65536;
/// What stands in the log for a call that threw an exception.
const THREW: u32 = 0xE;
/// How many elements of each table are looked at.
const ELEMENTS: u32 = 3;

/// A call for the driver to make: the function's index, and its arguments as instructions.
pub struct DriverCall {
    pub function: u32,
    pub arguments: Vec<String>,
}

/// The export of memory `index` of a module with a driver. The last memory is the log.
pub fn memory_export(index: usize) -> String {
    format!("driver: memory {index}")
}

/// Adds the driver to a module. Gives the new module in binary format.
pub fn with_driver(
    wasm: &[u8],
    edit: impl FnOnce(String) -> String,
    calls: &[DriverCall],
) -> Vec<u8> {
    let module = Module::parse(wasm).expect("only modules that are not refused are driven");
    let text = edit(wasmprinter::print_bytes(wasm).expect("a valid module can be printed"));
    let body = text
        .trim_end()
        .strip_suffix(')')
        .expect("a module ends in a parenthesis");
    let driver = Driver {
        module: &module,
        text: String::new(),
        log: 0,
    }
    .write(calls);
    wat::parse_str(format!("{body}{driver})")).expect("the driver fits the module")
}

struct Driver<'m, 'a> {
    module: &'m Module<'a>,
    text: String,
    /// Where in the log the next value goes.
    log: u32,
}

/// The name of the local that holds a result of a class, and its type.
fn slot(class: ValueClass, index: usize) -> (String, &'static str) {
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

impl Driver<'_, '_> {
    fn line(&mut self, line: &str) {
        writeln!(self.text, "    {line}").expect("a String takes everything");
    }

    fn write(mut self, calls: &[DriverCall]) -> String {
        for call in calls {
            if self.log + 65536 > LOG_BYTES {
                break;
            }
            self.call(call);
            self.observe();
        }
        let most = calls
            .iter()
            .map(|call| self.results(call.function).len())
            .max()
            .unwrap_or(0);
        let mut head = format!("  (memory $driver-log {LOG_PAGES} {LOG_PAGES})\n");
        for index in 0..=self.module.memories().len() {
            writeln!(
                head,
                "  (export \"{}\" (memory {index}))",
                memory_export(index)
            )
            .expect("a String takes everything");
        }
        writeln!(head, "  (func (export \"{DRIVER}\")").expect("a String takes everything");
        for index in 0..most.max(1) {
            for ty in ["i32", "i64", "f32", "f64", "v128"] {
                writeln!(head, "    (local $driver-{ty}-{index} {ty})")
                    .expect("a String takes everything");
            }
        }
        format!("\n{head}{}  )\n", self.text)
    }

    fn results(&self, function: u32) -> Vec<ValueClass> {
        let results = self
            .module
            .signature(function)
            .map_or(&[][..], |(_, results)| results);
        results.iter().map(|ty| ValueClass::of(*ty)).collect()
    }

    /// Calls, and logs the results or that there are none.
    fn call(&mut self, call: &DriverCall) {
        let results = self.results(call.function);
        self.line("block $driver-done");
        self.line("block $driver-caught");
        self.line("try_table (catch_all $driver-caught)");
        for argument in &call.arguments {
            self.line(argument);
        }
        self.line(&format!("call {}", call.function));
        for (index, class) in results.iter().enumerate().rev() {
            if is_reference(*class) {
                self.line("ref.is_null");
            }
            self.line(&format!("local.set {}", slot(*class, index).0));
        }
        for (index, class) in results.iter().enumerate() {
            let (local, ty) = slot(*class, index);
            self.store(ty, &format!("local.get {local}"));
        }
        self.line("br $driver-done");
        self.line("end");
        self.line("end");
        self.store("i32", &format!("i32.const {THREW}"));
        self.line("end");
    }

    fn store(&mut self, ty: &str, value: &str) {
        let address = self.log;
        self.line(&format!(
            "i32.const {address} {value} {ty}.store $driver-log"
        ));
        self.log += 16;
    }

    /// Logs the globals, and of the tables size and which elements are null.
    fn observe(&mut self) {
        for (index, global) in self.module.globals().iter().enumerate() {
            let class = ValueClass::of(global.content_type);
            let null = if is_reference(class) {
                "ref.is_null"
            } else {
                ""
            };
            self.store(slot(class, 0).1, &format!("global.get {index} {null}"));
        }
        for (index, table) in self.module.tables().iter().enumerate() {
            let ty = if table.table64 { "i64" } else { "i32" };
            self.store(ty, &format!("table.size {index}"));
            for element in 0..ELEMENTS {
                self.line(&format!(
                    "{ty}.const {element} table.size {index} {ty}.lt_u if"
                ));
                self.store(
                    "i32",
                    &format!("{ty}.const {element} table.get {index} ref.is_null"),
                );
                self.line("end");
            }
        }
    }
}
