//! What is no code: the rewritten module has all that the original has, at the same indices.

use crate::context::{Context, Role};
use crate::error::{Result, section};
use crate::frames::STAGED_MAX;
use crate::module::Module;
use std::fmt::Debug;
use wasmparser::{
    ConstExpr, DataKind, ElementItems, ElementKind, ExternalKind, GlobalType, Operator, TableInit,
    ValType,
};

/// Compares all sections but code.
pub(crate) fn compare(context: &Context, original: &Module<'_>, main: &Module<'_>) -> Result<()> {
    if original.imports != main.imports {
        return section("imports", "they are not the original's");
    }
    if main.start.is_some() {
        return section(
            "start",
            "there is a start function, which the host is to call",
        );
    }
    begins_with("types", &main.types, &original.types)?;
    begins_with("tags", &main.tags, &original.tags)?;
    begins_with("memories", &main.memories, &original.memories)?;
    if main.memories.len() != original.memories.len() + 2 {
        return section("memories", "there are not exactly two more");
    }
    let defined = original.imported_functions as usize;
    begins_with("functions", &main.functions, &original.functions)?;
    for import in 0..defined {
        let wrapper = main.functions.get(original.functions.len() + import);
        if wrapper != original.functions.get(import) {
            return section(
                "functions",
                format!("import {import} has no wrapper of its type"),
            );
        }
    }
    compare_tables(context, original, main)?;
    compare_globals(context, original, main)?;
    compare_exports(context, original, main)?;
    compare_elements(context, original, main)?;
    compare_data(original, main)
}

fn begins_with<T: PartialEq + Debug>(what: &'static str, list: &[T], start: &[T]) -> Result<()> {
    if list.starts_with(start) {
        return Ok(());
    }
    let place = start
        .iter()
        .zip(list)
        .position(|(left, right)| left != right);
    section(
        what,
        format!("they do not begin with the original's (at {place:?})"),
    )
}

/// Whether function `there` of the rewritten module is the original's function `index`.
fn is_function(context: &Context, index: u32, there: u32) -> bool {
    context.role(there) == Role::Original(index)
}

/// Whether an expression computes the same.
fn is_same(context: &Context, expression: &ConstExpr<'_>, there: &ConstExpr<'_>) -> Result<bool> {
    let mut operators = expression.get_operators_reader();
    let mut others = there.get_operators_reader();
    while !operators.eof() && !others.eof() {
        let same = match (operators.read()?, others.read()?) {
            (
                Operator::RefFunc { function_index },
                Operator::RefFunc {
                    function_index: other,
                },
            ) => is_function(context, function_index, other),
            (operator, other) => operator == other,
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(operators.eof() && others.eof())
}

fn compare_tables(context: &Context, original: &Module<'_>, main: &Module<'_>) -> Result<()> {
    for (index, table) in original.tables.iter().enumerate() {
        let Some(other) = main.tables.get(index) else {
            return section("tables", "some are missing");
        };
        let same = table.ty == other.ty
            && match (&table.init, &other.init) {
                (TableInit::RefNull, TableInit::RefNull) => true,
                (TableInit::Expr(init), TableInit::Expr(other)) => is_same(context, init, other)?,
                _ => false,
            };
        if !same {
            return section("tables", format!("defined table {index} is another one"));
        }
    }
    Ok(())
}

fn compare_globals(context: &Context, original: &Module<'_>, main: &Module<'_>) -> Result<()> {
    let added = main.globals.get(original.globals.len()..);
    let added = added.unwrap_or_default().iter().map(|global| global.ty);
    let of = |content_type, count| {
        let ty = GlobalType {
            content_type,
            mutable: true,
            shared: false,
        };
        std::iter::repeat_n(ty, count as usize)
    };
    if !added.eq(of(ValType::I32, STAGED_MAX.short).chain(of(ValType::I64, STAGED_MAX.long))) {
        return section(
            "globals",
            "what is staged does not go into those that are added",
        );
    }
    for (index, (global, other)) in original.globals.iter().zip(&main.globals).enumerate() {
        if global.ty != other.ty || !is_same(context, &global.init_expr, &other.init_expr)? {
            return section("globals", format!("defined global {index} is another one"));
        }
    }
    Ok(())
}

fn compare_exports(context: &Context, original: &Module<'_>, main: &Module<'_>) -> Result<()> {
    for (position, (name, kind, index)) in original.exports.iter().enumerate() {
        let same = main
            .exports
            .get(position)
            .is_some_and(|(other, other_kind, there)| {
                let is_index = match kind {
                    ExternalKind::Func | ExternalKind::FuncExact => {
                        is_function(context, *index, *there)
                    }
                    _ => index == there && kind == other_kind,
                };
                name == other && is_index
            });
        if !same {
            return section("exports", format!("{name} is another one"));
        }
    }
    Ok(())
}

fn compare_elements(context: &Context, original: &Module<'_>, main: &Module<'_>) -> Result<()> {
    for (index, element) in original.elements.iter().enumerate() {
        let Some(other) = main.elements.get(index) else {
            return section("elements", "some are missing");
        };
        let same_kind = match (&element.kind, &other.kind) {
            (ElementKind::Passive, ElementKind::Passive)
            | (ElementKind::Declared, ElementKind::Declared) => true,
            (
                ElementKind::Active {
                    table_index,
                    offset_expr,
                },
                ElementKind::Active {
                    table_index: table,
                    offset_expr: offset,
                },
            ) => {
                table_index.unwrap_or(0) == table.unwrap_or(0)
                    && is_same(context, offset_expr, offset)?
            }
            _ => false,
        };
        let same_items = match (&element.items, &other.items) {
            (ElementItems::Functions(list), ElementItems::Functions(others)) => {
                let functions: Vec<u32> = list
                    .clone()
                    .into_iter()
                    .collect::<std::result::Result<_, _>>()?;
                let there: Vec<u32> = others
                    .clone()
                    .into_iter()
                    .collect::<std::result::Result<_, _>>()?;
                functions.len() == there.len()
                    && functions
                        .iter()
                        .zip(there)
                        .all(|(function, there)| is_function(context, *function, there))
            }
            (ElementItems::Expressions(ty, list), ElementItems::Expressions(other, others)) => {
                let mut same = ty == other && list.count() == others.count();
                for (expression, there) in list.clone().into_iter().zip(others.clone()) {
                    same &= is_same(context, &expression?, &there?)?;
                }
                same
            }
            _ => false,
        };
        if !same_kind || !same_items {
            return section("elements", format!("segment {index} is another one"));
        }
    }
    Ok(())
}

/// Passive segments are kept; active ones, which the host applies, are empty and there only if code can name them.
fn compare_data(original: &Module<'_>, main: &Module<'_>) -> Result<()> {
    if main.data.is_empty()
        && original
            .data
            .iter()
            .all(|data| matches!(data.kind, DataKind::Active { .. }))
    {
        return Ok(());
    }
    if main.data.len() != original.data.len() {
        return section("data", "the number of segments");
    }
    for (index, (data, other)) in original.data.iter().zip(&main.data).enumerate() {
        let bytes = match data.kind {
            DataKind::Passive => data.data,
            DataKind::Active { .. } => &[],
        };
        if !matches!(other.kind, DataKind::Passive) || other.data != bytes {
            return section("data", format!("segment {index} is another one"));
        }
    }
    Ok(())
}
