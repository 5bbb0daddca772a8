//! From a file to a compiled program, and what the command line says to and hears from its functions.

mod values;

use std::fs;
use std::path::Path;

use wsnap::snapshots::{Manifest, Value};
use wsnap::{Call, Engine, EngineConfig, ModuleBytes, Options, Program};

use crate::failure::Failure;
use crate::output;
use crate::places::Places;

pub(crate) use values::{describe, type_name};

/// The function that a WASI command exports.
const COMMAND_EXPORT: &str = "_start";

const BINARY_MAGIC: &[u8] = b"\0asm";
/// What follows the magic of a component: another version, and another layer than that of modules.
const COMPONENT_VERSION: &[u8] = b"\x0d\0\x01\0";

/// How programs are compiled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub target: Option<String>,
    pub deterministic: bool,
    pub bare: bool,
    /// The program goes on from an image.
    pub resumed: bool,
    /// How much native stack the program can use, if somebody says so.
    pub stack_bytes: Option<usize>,
    /// Whether its safepoints are counted.
    pub countable_safepoints: bool,
}

impl Settings {
    /// The engine that compiles so.
    pub fn engine(&self, places: &Places) -> Result<Engine, Failure> {
        let mut config = EngineConfig {
            target: self.target.clone(),
            deterministic: self.deterministic,
            stack_bytes: self.stack_bytes(),
            cache: places.cache_directory(),
            bare: self.bare,
            rewriting: Options {
                countable_safepoints: self.countable_safepoints,
                ..Options::default()
            },
        };
        match Engine::new(&config) {
            // Nobody asked for this place: without it programs start more slowly, and that is all.
            Err(wsnap::Error::Cache { .. }) if !places.is_cache_chosen() => {
                config.cache = None;
                Ok(Engine::new(&config)?)
            }
            engine => Ok(engine?),
        }
    }

    /// How much native stack the program can use. Functions that were on the call stack of an image may need more of
    /// it than they did before.
    pub fn stack_bytes(&self) -> usize {
        if let Some(stack_bytes) = self.stack_bytes {
            return stack_bytes;
        }
        let stack_bytes = EngineConfig::default().stack_bytes;
        if self.resumed {
            stack_bytes.saturating_mul(2)
        } else {
            stack_bytes
        }
    }
}

/// Reads a module, in text or binary format, and returns its binary form.
pub(crate) fn read_module(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = fs::read(path).map_err(|error| Failure::io("read the module", path, &error))?;
    let bytes = to_binary(bytes, path)?;
    if bytes[BINARY_MAGIC.len()..].starts_with(COMPONENT_VERSION) {
        return Err(Failure::new(format!(
            "{} is a component, not a core module",
            path.display()
        ))
        .hint("compile it for the target wasm32-wasip1 (WASI preview 1)"));
    }
    Ok(bytes)
}

fn to_binary(bytes: Vec<u8>, path: &Path) -> Result<Vec<u8>, Failure> {
    if bytes.starts_with(BINARY_MAGIC) {
        return Ok(bytes);
    }
    if bytes.is_empty() {
        return Err(Failure::new(format!(
            "the module {} is empty",
            path.display()
        )));
    }
    let Some(text) = String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
    else {
        return Err(Failure::new(format!(
            "{} is neither a WebAssembly module nor the text of one",
            path.display()
        )));
    };
    let parsed = wat::Parser::new().parse_str(Some(path), &text);
    parsed.map_err(|error| Failure::new(error.to_string()).about(path.display()))
}

/// Compiles a module, or takes its code from the cache: the second result says which. `subject` names the module in
/// messages, and `image` is what the program goes on from, if it does.
pub(crate) fn compile(
    engine: &Engine,
    module: ModuleBytes,
    subject: &str,
    image: Option<&Manifest>,
) -> Result<(Program, bool), Failure> {
    let mut progress = None;
    let compiling = || progress = Some(output::progress(format!("compiling {subject} …")));
    let program = match image {
        Some(manifest) => Program::for_image(engine, module, manifest, compiling),
        None => Program::with_notice(engine, module, compiling),
    };
    let cached = progress.is_none();
    drop(progress);
    match program {
        Ok(program) => Ok((program, cached)),
        Err(error) => Err(Failure::from(error).about(subject)),
    }
}

/// What to call in a program: the function `invoke` with arguments from the command line, or the command's entry point.
pub(crate) fn call(
    program: &Program,
    invoke: Option<&str>,
    arguments: &[String],
) -> Result<Call, Failure> {
    let export = invoke.unwrap_or(COMMAND_EXPORT);
    let Some((parameters, _)) = program.signature(export) else {
        let failure = Failure::new(format!("the module exports no function {export:?}"));
        return Err(match invoke {
            Some(_) => failure
                .hint("names are case-sensitive; `wasm-objdump -x -j Export MODULE` lists them"),
            None => failure.hint("--invoke FUNCTION calls another function of it"),
        });
    };
    let arguments = match invoke {
        Some(_) => values::parse_all(export, &parameters, arguments)?,
        None => Vec::new(),
    };
    Ok(Call {
        export: export.to_owned(),
        arguments,
    })
}

/// Prints what a function returned, one value a line.
pub(crate) fn print_results(results: &[Value]) -> Result<(), Failure> {
    results
        .iter()
        .try_for_each(|value| output::result(describe(value)))
}
