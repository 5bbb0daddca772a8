//! A small program in place of a large one that shows the same.
//!
//! Bodies of functions are emptied, and ranges of instructions left out, as long as the module is valid, ends by itself, and
//! still shows what is looked for. (The crate `wasm-shrink` empties bodies and removes items, but leaves out no range of
//! instructions; and its mutations depend on chance.)

use crate::driven::bare_in;
use crate::driver::Driven;
use wasm_encoder::{CodeSection, RawSection};
use wasmparser::{FunctionBody, Parser, Payload, Validator, WasmFeatures};

/// Units of fuel for a run of what may be a smaller program: leaving instructions out can make loops endless.
const FUEL: u64 = 20_000_000;

/// A module taken apart: its sections in order, and the bodies in place of the code section.
struct Parts {
    sections: Vec<Section>,
    bodies: Vec<Body>,
}

enum Section {
    Raw { id: u8, bytes: Vec<u8> },
    Code,
}

/// The encoded parts of a function: its locals, then each instruction except for the last, which is `end`.
#[derive(Clone)]
struct Body {
    locals: Vec<u8>,
    instructions: Vec<Vec<u8>>,
}

impl Body {
    fn new(wasm: &[u8], body: &FunctionBody<'_>) -> Option<Self> {
        let operators = body.get_operators_reader().ok()?;
        let start = operators.original_position();
        let starts: Option<Vec<usize>> = operators
            .into_iter_with_offsets()
            .map(|operator| Some(operator.ok()?.1))
            .collect();
        let starts = starts?;
        let instructions = starts
            .windows(2)
            .map(|pair| wasm[pair[0]..pair[1]].to_vec());
        Some(Self {
            locals: wasm[body.range().start..start].to_vec(),
            instructions: instructions.collect(),
        })
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.locals.clone();
        bytes.extend(self.instructions.iter().flatten());
        bytes.push(0x0b);
        bytes
    }
}

impl Parts {
    fn new(wasm: &[u8]) -> Option<Self> {
        let (mut sections, mut bodies) = (Vec::new(), Vec::new());
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload.ok()?;
            match &payload {
                Payload::CodeSectionStart { .. } => sections.push(Section::Code),
                Payload::CodeSectionEntry(body) => bodies.push(Body::new(wasm, body)?),
                // Of custom sections only names matter, and they make a module readable.
                _ => {
                    if let Some((id, range)) = payload.as_section() {
                        let bytes = wasm[range].to_vec();
                        sections.push(Section::Raw { id, bytes });
                    }
                }
            }
        }
        Some(Self { sections, bodies })
    }

    fn wasm(&self) -> Vec<u8> {
        let mut module = wasm_encoder::Module::new();
        for section in &self.sections {
            match section {
                Section::Raw { id, bytes } => {
                    module.section(&RawSection {
                        id: *id,
                        data: bytes,
                    });
                }
                Section::Code => {
                    let mut code = CodeSection::new();
                    for body in &self.bodies {
                        code.raw(&body.bytes());
                    }
                    module.section(&code);
                }
            }
        }
        module.finish()
    }
}

/// Looks for a smaller program.
struct Reducer<'r> {
    engine: wasmtime::Engine,
    driven: Driven,
    parts: Parts,
    shows: &'r dyn Fn(&Driven) -> bool,
}

/// A smaller program of which `shows` says that it shows what is looked for, as it says of `driven`.
#[must_use]
pub fn reduce(driven: &Driven, shows: &dyn Fn(&Driven) -> bool) -> Driven {
    let mut settings = wasmtime::Config::new();
    settings.consume_fuel(true);
    let engine = wasmtime::Engine::new(&settings);
    let (Ok(engine), Some(parts)) = (engine, Parts::new(&driven.wasm)) else {
        return driven.clone();
    };
    let mut reducer = Reducer {
        engine,
        driven: driven.clone(),
        parts,
        shows,
    };
    while reducer.round() {}
    reducer.driven
}

impl Reducer<'_> {
    /// Whether anything could be left out.
    fn round(&mut self) -> bool {
        let mut smaller = false;
        for function in 0..self.parts.bodies.len() {
            let count = self.parts.bodies[function].instructions.len();
            if count > 1 {
                // What is never executed may as well trap.
                smaller |= self.replace(function, vec![vec![0x00]]);
            }
            let mut length = count;
            while length > 0 {
                smaller |= self.leave_out(function, length);
                length /= 2;
            }
        }
        smaller
    }

    /// Leaves out each range of so many instructions that need not be there.
    fn leave_out(&mut self, function: usize, length: usize) -> bool {
        let mut smaller = false;
        let mut start = 0;
        while start + length <= self.parts.bodies[function].instructions.len() {
            let mut instructions = self.parts.bodies[function].instructions.clone();
            instructions.drain(start..start + length);
            if self.replace(function, instructions) {
                smaller = true;
            } else {
                start += length.div_ceil(2);
            }
        }
        smaller
    }

    /// Gives a function other instructions, if the program then still shows what is looked for.
    fn replace(&mut self, function: usize, instructions: Vec<Vec<u8>>) -> bool {
        let before = std::mem::replace(&mut self.parts.bodies[function].instructions, instructions);
        let candidate = Driven {
            wasm: self.parts.wasm(),
            ..self.driven.clone()
        };
        let good = self.ends(&candidate) && (self.shows)(&candidate);
        if good {
            self.driven = candidate;
        } else {
            self.parts.bodies[function].instructions = before;
        }
        good
    }

    /// Whether a program is valid and ends.
    fn ends(&self, driven: &Driven) -> bool {
        let features = WasmFeatures::WASM3 | WasmFeatures::THREADS;
        if Validator::new_with_features(features)
            .validate_all(&driven.wasm)
            .is_err()
        {
            return false;
        }
        let Ok(module) = wasmtime::Module::from_binary(&self.engine, &driven.wasm) else {
            return false;
        };
        let mut store = wasmtime::Store::new(&self.engine, ());
        if store.set_fuel(FUEL).is_err() {
            return false;
        }
        bare_in(&mut store, &module, driven.memories, driven.all());
        store.get_fuel().is_ok_and(|left| left > 0)
    }
}
