//! Names of functions for people, who read them in the backtraces of traps.

use crate::clones::CloneRequest;
use crate::module::Module;
use std::collections::HashMap;
use std::ops::Range;
use wasm_encoder as enc;
use wasm_encoder::Encode;
use wasmparser::{BinaryReader, Name, NameSectionReader};

/// What bridges are called, and what calls through one.
const BRIDGE: &str = "wsnap:bridge";

/// The content of a name section that has the names of `module`, and those of its bridges, the functions `bridges`, which come last.
/// What cannot be read stays as it is.
pub(crate) fn with_bridges(module: &Module<'_>, bridges: Range<u32>) -> Option<Vec<u8>> {
    let original = module
        .name_section
        .as_ref()
        .map(|range| &module.bytes[range.clone()]);
    if bridges.is_empty() {
        return original.map(<[u8]>::to_vec);
    }
    let mut functions = enc::NameMap::new();
    for bridge in bridges.clone() {
        functions.append(bridge, BRIDGE);
    }
    let Some(original) = original else {
        let mut section = enc::NameSection::new();
        section.functions(&functions);
        return Some(content(&section));
    };
    Some(appended(original, bridges).unwrap_or_else(|| original.to_vec()))
}

/// The subsections of a name section, with the names of bridges behind those of other functions; none if they cannot be read, or no
/// function has a name.
fn appended(original: &[u8], bridges: Range<u32>) -> Option<Vec<u8>> {
    const FUNCTIONS: u8 = 1;
    let mut reader = BinaryReader::new(original, 0);
    let mut content = Vec::with_capacity(original.len() + 16 * bridges.len());
    let mut has_functions = false;
    while !reader.eof() {
        let id = reader.read_u8().ok()?;
        let size = reader.read_var_u32().ok()?;
        let subsection = reader.read_bytes(size as usize).ok()?;
        content.push(id);
        if id != FUNCTIONS || has_functions {
            subsection.encode(&mut content);
            continue;
        }
        has_functions = true;
        let mut names = BinaryReader::new(subsection, 0);
        let count = names.read_var_u32().ok()?;
        let mut functions = Vec::with_capacity(subsection.len() + 16 * bridges.len());
        count
            .checked_add(bridges.len() as u32)?
            .encode(&mut functions);
        functions.extend_from_slice(&subsection[names.original_position()..]);
        for bridge in bridges.clone() {
            bridge.encode(&mut functions);
            BRIDGE.encode(&mut functions);
        }
        functions.as_slice().encode(&mut content);
    }
    has_functions.then_some(content)
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
