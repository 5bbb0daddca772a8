//! The names that a module gives its functions, locals and globals.

use std::collections::HashMap;
use wasmparser::{KnownCustom, Name, NameSectionReader, Parser, Payload};

/// Names from a module's name section, as far as it has any and they can be read.
#[derive(Debug, Default)]
pub struct Names {
    functions: HashMap<u32, String>,
    locals: HashMap<(u32, u32), String>,
    globals: HashMap<u32, String>,
}

impl Names {
    /// Reads the names of a module in binary format; imported functions are named after their import otherwise.
    pub fn parse(wasm: &[u8]) -> Self {
        let mut names = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload {
                Ok(Payload::ImportSection(reader)) => names.read_imports(reader),
                Ok(Payload::CustomSection(custom)) => {
                    if let KnownCustom::Name(reader) = custom.as_known() {
                        names.read(reader);
                    }
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        names
    }

    fn read_imports(&mut self, reader: wasmparser::ImportSectionReader<'_>) {
        let mut index = 0;
        for import in reader.into_imports().map_while(Result::ok) {
            if matches!(
                import.ty,
                wasmparser::TypeRef::Func(_) | wasmparser::TypeRef::FuncExact(_)
            ) {
                self.functions
                    .insert(index, format!("{}.{}", import.module, import.name));
                index += 1;
            }
        }
    }

    fn read(&mut self, reader: NameSectionReader<'_>) {
        for name in reader.into_iter().map_while(Result::ok) {
            match name {
                Name::Function(map) => {
                    let named = map.into_iter().map_while(Result::ok);
                    self.functions
                        .extend(named.map(|naming| (naming.index, naming.name.to_owned())));
                }
                Name::Local(map) => {
                    for function in map.into_iter().map_while(Result::ok) {
                        let named = function.names.into_iter().map_while(Result::ok);
                        let key = |local: u32| (function.index, local);
                        self.locals.extend(
                            named.map(|naming| (key(naming.index), naming.name.to_owned())),
                        );
                    }
                }
                Name::Global(map) => {
                    let named = map.into_iter().map_while(Result::ok);
                    self.globals
                        .extend(named.map(|naming| (naming.index, naming.name.to_owned())));
                }
                _ => {}
            }
        }
    }

    /// The name of function `index`.
    pub fn function(&self, index: u32) -> Option<&str> {
        self.functions.get(&index).map(String::as_str)
    }

    /// The name of local `local` of function `function`.
    pub fn local(&self, function: u32, local: u32) -> Option<&str> {
        self.locals.get(&(function, local)).map(String::as_str)
    }

    /// The name of global `index`.
    pub fn global(&self, index: u32) -> Option<&str> {
        self.globals.get(&index).map(String::as_str)
    }
}
