//! What the indices of a rewritten module, or of a module of clones, mean.

use crate::bridges::Bridge;
use crate::error::{Result, section};
use crate::frames::Staged;
use crate::module::Module;
use std::collections::HashMap;
use wasmparser::{ElementItems, ElementKind, ExternalKind, Operator, ValType};

/// What a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The original's function with this index. For an imported one it is the wrapper around it.
    Original(u32),
    /// The cold path of safepoints.
    Safepoint,
    /// Completes a frame. It comes next to the cold path of safepoints.
    PushFrame,
    /// Saves a reference.
    Saver,
    /// Stands for several functions: the bridge with this number.
    Bridge(usize),
    /// Does what an instruction on a segment does: kind as in [`segment_words`], memory or table, segment.
    Segment([u32; 3]),
    /// Something else, which the code of functions does not call.
    Other,
}

/// Indices in one module.
pub(crate) struct Context {
    /// The control memory.
    pub control: u32,
    /// The request memory: the same bytes.
    pub request: u32,
    pub roles: HashMap<u32, Role>,
    /// The table of referenced functions, and the original's function at each of its places.
    pub referenced_table: u32,
    pub referenced: Vec<u32>,
    /// In a rewritten module: the first of the globals in which values are staged.
    pub staging: Option<u32>,
    /// So much that was staged what completes frames copies, at most.
    pub copied: Staged,
    pub bridges: Vec<Bridge>,
    /// The tables of saved references.
    pub saved_tables: Vec<u32>,
    /// By index in the original: clones can call the function, as some function with safepoints does or it is the host's.
    pub called_by_clones: Vec<bool>,
    /// In a module of clones: the table of clones.
    pub clones: Option<u32>,
    /// By index in the original: calls of the function may come back unwinding.
    pub unwinding: Vec<bool>,
    /// Of the original: data segments, which element segments' flags stand behind.
    pub data_segments: u32,
}

/// An instruction on a segment as numbers: what it is, memory or table, segment.
pub(crate) fn segment_words(operator: &Operator<'_>) -> Option<[u32; 3]> {
    Some(match *operator {
        Operator::MemoryInit { data_index, mem } => [0, mem, data_index],
        Operator::TableInit { elem_index, table } => [1, table, elem_index],
        Operator::DataDrop { data_index } => [2, 0, data_index],
        Operator::ElemDrop { elem_index } => [3, 0, elem_index],
        _ => return None,
    })
}

/// What the names of added exports begin with.
fn prefix(original: &Module<'_>) -> String {
    let mut prefix = String::from("wsnap:");
    while original
        .exports
        .iter()
        .any(|export| export.0.starts_with(&prefix))
    {
        prefix.push(':');
    }
    prefix
}

impl Context {
    /// The meaning of the indices of the rewritten module.
    pub fn of_main(original: &Module<'_>, main: &Module<'_>) -> Result<Self> {
        let prefix = prefix(original);
        let (count, imported) = (original.function_count(), original.imported_functions);
        let mut roles: HashMap<u32, Role> = (imported..count)
            .map(|function| (function, Role::Original(function)))
            .chain((0..imported).map(|import| (count + import, Role::Original(import))))
            .collect();
        let saved = ["saved-functions", "saved-externs", "saved-exceptions"];
        let saved_tables: Vec<u32> = saved
            .iter()
            .filter_map(|name| main.exported(&format!("{prefix}{name}")))
            .collect();
        for (name, kind, index) in &main.exports {
            let Some(name) = name.strip_prefix(&prefix) else {
                continue;
            };
            if *kind == ExternalKind::Func && name == "safepoint" {
                roles.insert(*index, Role::Safepoint);
                roles.insert(*index + 1, Role::PushFrame);
            }
            let bridge = name.strip_prefix("bridge-");
            if let Some(number) = bridge.and_then(|number| number.parse().ok())
                && *kind == ExternalKind::Func
            {
                roles.insert(*index, Role::Bridge(number));
            }
            if *kind == ExternalKind::Func && name.starts_with("helper-") {
                roles.insert(*index, helper(main, *index, &saved_tables)?);
            }
        }
        let table = |name: &str| main.exported(&format!("{prefix}{name}"));
        let Some(referenced_table) = table("referenced-functions") else {
            return section("exports", "the table of referenced functions is missing");
        };
        Ok(Self {
            control: original.memories.len() as u32,
            request: original.memories.len() as u32 + 1,
            referenced: referenced(main, referenced_table, &roles)?,
            referenced_table,
            roles,
            saved_tables,
            staging: Some(original.global_count()),
            copied: Staged::default(),
            bridges: Vec::new(),
            called_by_clones: Vec::new(),
            clones: None,
            unwinding: Vec::new(),
            data_segments: original.data.len() as u32,
        })
    }

    /// The meaning of the indices of a module of clones, whose imports name exports of the rewritten module.
    pub fn of_clones(
        &self,
        original: &Module<'_>,
        main: &Module<'_>,
        clones: &Module<'_>,
    ) -> Result<Self> {
        let prefix = prefix(original);
        let functions = clones.imports.iter().filter(|import| {
            matches!(
                import.2,
                wasmparser::TypeRef::Func(_) | wasmparser::TypeRef::FuncExact(_)
            )
        });
        let mut roles = HashMap::new();
        for (index, (_, name, _)) in (0..).zip(functions) {
            let known = name.strip_prefix(&prefix);
            // A function that no function with safepoints calls is not exported, but named by its index all the same.
            let numbered = known.and_then(|name| name.strip_prefix("function-")?.parse().ok());
            let numbered = numbered.filter(|index| match self.roles.get(index) {
                Some(Role::Original(function)) => !self.called_by_clones[*function as usize],
                _ => false,
            });
            let in_main = main.exported(name).or(numbered);
            match in_main.and_then(|index| self.roles.get(&index)) {
                Some(role) if known.is_some() => roles.insert(index, *role),
                _ => return section("imports", format!("a module of clones imports {name}")),
            };
        }
        Ok(Self {
            roles,
            clones: Some(clones.table_count().saturating_sub(1)),
            staging: None,
            referenced: self.referenced.clone(),
            bridges: self.bridges.clone(),
            saved_tables: self.saved_tables.clone(),
            called_by_clones: self.called_by_clones.clone(),
            unwinding: self.unwinding.clone(),
            ..*self
        })
    }

    /// What function `index` is.
    pub fn role(&self, index: u32) -> Role {
        self.roles.get(&index).copied().unwrap_or(Role::Other)
    }

    /// Whether a call of the original's function may come back unwinding.
    pub fn unwinds(&self, function: u32) -> bool {
        self.unwinding.get(function as usize).is_none_or(|may| *may)
    }
}

/// What a helper does, from its type and body.
fn helper(main: &Module<'_>, function: u32, saved_tables: &[u32]) -> Result<Role> {
    let (Some(ty), Some(body)) = (main.signature(function), main.body(function)) else {
        return section("exports", "a helper is no function of the module");
    };
    if let ([ValType::Ref(_)], [ValType::I32]) = (ty.params(), ty.results()) {
        for operator in body.get_operators_reader()? {
            match operator? {
                Operator::TableSet { table }
                | Operator::TableGrow { table }
                | Operator::TableSize { table }
                    if !saved_tables.contains(&table) =>
                {
                    return section("code", "a reference is saved in a table of something else");
                }
                _ => {}
            }
        }
        return Ok(Role::Saver);
    }
    for operator in body.get_operators_reader()? {
        if let Some(words) = segment_words(&operator?) {
            return Ok(Role::Segment(words));
        }
    }
    Ok(Role::Other)
}

/// The original's functions in the table of referenced ones.
fn referenced(main: &Module<'_>, table: u32, roles: &HashMap<u32, Role>) -> Result<Vec<u32>> {
    let mut functions = Vec::new();
    for element in &main.elements {
        let ElementKind::Active {
            table_index: Some(index),
            ..
        } = element.kind
        else {
            continue;
        };
        let ElementItems::Functions(list) = &element.items else {
            continue;
        };
        if index != table {
            continue;
        }
        for function in list.clone() {
            match roles.get(&function?) {
                Some(Role::Original(function)) => functions.push(*function),
                _ => return section("elements", "a referenced function is none of the original"),
            }
        }
    }
    Ok(functions)
}
