//! Names of functions for people, who read them in the backtraces of traps.

use crate::clones::CloneRequest;
use crate::module::Module;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use wasm_encoder as enc;
use wasm_encoder::Encode;
use wasmparser::{BinaryReader, Name, NameMap, NameSectionReader};

/// What bridges are called, and what calls through one.
const BRIDGE: &str = "wsnap:bridge";

/// The content of a name section that has the names of `module`, and those of its bridges, which are the last functions. What cannot be read
/// stays as it is, and bridges have no names then.
pub(crate) fn with_bridges<'a>(module: &Module<'a>, bridges: Range<u32>) -> Option<Cow<'a, [u8]>> {
    let range = module.name_section.clone();
    let original = range.map(|range| &module.bytes[range]);
    if bridges.is_empty() {
        return original.map(Cow::Borrowed);
    }
    match with_functions(
        original.unwrap_or_default(),
        module.function_count(),
        bridges,
    ) {
        Some(content) => Some(Cow::Owned(content)),
        None => original.map(Cow::Borrowed),
    }
}

/// The subsections of a name section, in which the first so many functions keep their names and bridges get theirs; none if they cannot
/// be read.
fn with_functions(original: &[u8], count: u32, bridges: Range<u32>) -> Option<Vec<u8>> {
    const FUNCTIONS: u8 = 1;
    let mut functions = enc::NameMap::new();
    let (mut before, mut behind) = (Vec::new(), Vec::new());
    let mut reader = BinaryReader::new(original, 0);
    while !reader.eof() {
        let id = reader.read_u8().ok()?;
        let size = reader.read_var_u32().ok()?;
        let subsection = reader.read_bytes(size as usize).ok()?;
        if id == FUNCTIONS {
            for naming in NameMap::new(BinaryReader::new(subsection, 0)).ok()? {
                let naming = naming.ok()?;
                if naming.index < count {
                    functions.append(naming.index, naming.name);
                }
            }
            continue;
        }
        let there = if id < FUNCTIONS {
            &mut before
        } else {
            &mut behind
        };
        there.push(id);
        subsection.encode(there);
    }
    for bridge in bridges {
        functions.append(bridge, BRIDGE);
    }
    let mut section = enc::NameSection::new();
    section.functions(&functions);
    before.extend(content(&section));
    before.extend(behind);
    Some(before)
}

/// The bytes of a custom section's content.
fn content(section: &enc::NameSection) -> Vec<u8> {
    section.as_custom().data.into_owned()
}

/// The names of the functions of a module of clones, which begin with function `first`: clones are called what their functions are,
/// and behind them are so many that call through bridges.
pub(crate) fn of_clones(
    module: &Module<'_>,
    first: u32,
    requests: &[CloneRequest],
    across: usize,
) -> enc::NameSection {
    let mut known = HashMap::new();
    if let Some(range) = &module.name_section {
        let reader = BinaryReader::new(&module.bytes[range.clone()], range.start);
        // Names are for people: what cannot be read of them is left out.
        for subsection in NameSectionReader::new(reader).map_while(Result::ok) {
            if let Name::Function(map) = subsection {
                let named = map.into_iter().map_while(Result::ok);
                known.extend(named.map(|naming| (naming.index, naming.name)));
            }
        }
    }
    let mut functions = enc::NameMap::new();
    for (index, request) in (first..).zip(requests) {
        match known.get(&request.function) {
            Some(name) => functions.append(index, name),
            None => functions.append(index, &format!("function {}", request.function)),
        }
    }
    let behind = first + requests.len() as u32;
    for index in behind..behind + across as u32 {
        functions.append(index, BRIDGE);
    }
    let mut names = enc::NameSection::new();
    names.functions(&functions);
    names
}
