//! What a frame holds, at any point of a function: in a raw frame as safepoints write it, and in the guest's own terms.

use crate::analysis::Analysis;
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::module::Module;
use crate::points::Point;
use crate::staging::{Slot, Slots, Staged};
use crate::types::ValueClass;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use wasmparser::Operator;

/// Where the values of a function lie in its saved raw frames. Every local that some
/// safepoint of the function saves has a slot of its own, so that safepoints have stores in common whatever else each of them
/// saves. The slots behind go to live locals that have none (there are such only at a call that a clone checks
/// because it was entered there), the operands, and when a call is in progress its results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Locals, ascending, and where each lies.
    locals: Vec<(u32, Slot)>,
    behind: Slots,
}

impl Places {
    /// For a function that saves the `locals`, ascending, which are of these classes, and frames that stage no more than `max`.
    pub fn new(locals: impl Iterator<Item = (u32, ValueClass)>, max: Staged) -> Self {
        let mut behind = Slots::new(max);
        let locals = locals
            .map(|(local, class)| (local, behind.give(class)))
            .collect();
        Self { locals, behind }
    }

    /// Where local `local` lies, if it has a place.
    pub fn local(&self, local: u32) -> Option<Slot> {
        let index = self
            .locals
            .binary_search_by_key(&local, |(local, _)| *local)
            .ok()?;
        Some(self.locals[index].1)
    }

    /// The slots of what has no place.
    pub fn behind(&self) -> Slots {
        self.behind
    }
}

/// The layouts at some points of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionLayouts {
    /// The locals that some safepoint of the function saves, ascending.
    pub saved: Vec<(u32, ValueClass)>,
    /// What a frame holds at each of the points asked for.
    pub points: Vec<PointLayout>,
}

/// The values of a frame that stands at some point. In a frame to restore they follow the header without gaps: the
/// locals, the operands. For saved frames see [`Places`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointLayout {
    /// Live locals, ascending, with their classes.
    pub locals: Vec<(u32, ValueClass)>,
    /// The operand stack, bottom first, without the arguments of a call in progress.
    pub operands: Vec<ValueClass>,
    /// For a call in progress: the results that it will give.
    pub results: Vec<ValueClass>,
    /// For a call in progress: the index of the callee, if the instruction names it.
    pub callee: Option<u32>,
}

/// What a safepoint, which raw frames name by an offset, is in terms of points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// The point whose layout the raw frame has.
    pub layout: Point,
    /// The point at which the activation stands if it is the innermost one; others stand at `layout`.
    pub innermost: Point,
}

/// Finds the layouts at `points` of `function`, in the same order, and where its values lie in saved frames.
///
/// # Errors
///
/// [`Error::NoFunction`] unless `function` is defined in the module; [`Error::NoPoint`] if there is no instruction in
/// live code at a point's offset, or no call where one is to be in progress.
pub fn layouts(
    module: &Module<'_>,
    facts: &Facts,
    function: u32,
    points: &[Point],
) -> Result<FunctionLayouts> {
    let mut validator = module
        .function_validator(function)?
        .into_validator(Default::default());
    let analysis = Analysis::new(module, &facts.plan, function, points)?;
    let body = module.body(function);
    let mut locals = body.get_locals_reader()?;
    for _ in 0..locals.get_count() {
        let offset = locals.original_position();
        let (count, ty) = locals.read()?;
        validator.define_locals(offset, count, ty)?;
    }
    let class = |local: &u32| {
        let ty = validator.get_local_type(*local);
        (*local, ty.map_or(ValueClass::I32, ValueClass::of))
    };
    let saved = analysis.saved.iter().map(class).collect();
    let mut found: HashMap<Point, PointLayout> = HashMap::new();
    let wanted: HashSet<Point> = points.iter().copied().collect();
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        let (operator, offset) = operators.read_with_offset()?;
        for point in [Point::Next(offset as u32), Point::Calling(offset as u32)] {
            if !wanted.contains(&point) {
                continue;
            }
            let Some(live) = analysis.live_at(point) else {
                continue;
            };
            let mut layout = PointLayout {
                locals: Vec::new(),
                operands: Vec::new(),
                results: Vec::new(),
                callee: None,
            };
            for local in live {
                let ty = validator
                    .get_local_type(*local)
                    .ok_or(Error::NoPoint { function, point })?;
                layout.locals.push((*local, ValueClass::of(ty)));
            }
            let mut height = validator.operand_stack_height();
            if matches!(point, Point::Calling(_)) {
                let (callee, ty) =
                    call_type(module, &operator).ok_or(Error::NoPoint { function, point })?;
                let (arguments, _) = operator.operator_arity(&validator).unwrap_or((0, 0));
                height -= arguments;
                layout.callee = callee;
                layout.results = module.types[ty as usize]
                    .results()
                    .iter()
                    .map(|ty| ValueClass::of(*ty))
                    .collect();
            }
            let top = validator.operand_stack_height();
            for place in 0..height {
                let ty = validator
                    .get_operand_type((top - 1 - place) as usize)
                    .flatten();
                layout.operands.push(ValueClass::of(
                    ty.ok_or(Error::NoPoint { function, point })?,
                ));
            }
            found.insert(point, layout);
        }
        validator.op(offset, &operator)?;
    }
    let layout = |point: &Point| {
        found.get(point).cloned().ok_or(Error::NoPoint {
            function,
            point: *point,
        })
    };
    let points = points.iter().map(layout).collect::<Result<_>>()?;
    Ok(FunctionLayouts { saved, points })
}

fn call_type(module: &Module<'_>, operator: &Operator<'_>) -> Option<(Option<u32>, u32)> {
    match *operator {
        Operator::Call { function_index } => Some((
            Some(function_index),
            module.functions[function_index as usize],
        )),
        Operator::CallIndirect { type_index, .. } | Operator::CallRef { type_index } => {
            Some((None, type_index))
        }
        _ => None,
    }
}

/// Finds what the safepoints are that the raw frames of `function` name by `offsets`, in the same order.
///
/// # Errors
///
/// [`Error::NoFunction`] unless `function` is defined in the module; [`Error::NoPoint`] for an offset at which there
/// is no safepoint.
pub fn sites(module: &Module<'_>, function: u32, offsets: &[u32]) -> Result<Vec<Site>> {
    if function >= module.function_count() || module.is_imported_function(function) {
        return Err(Error::NoFunction { function });
    }
    let body = module.body(function);
    let mut found = HashMap::new();
    let wanted: HashSet<u32> = offsets.iter().copied().collect();
    let mut operators = body.get_operators_reader()?;
    let first = Point::Next(operators.original_position() as u32);
    found.insert(
        body.range().start as u32,
        Site {
            layout: first,
            innermost: first,
        },
    );
    while !operators.eof() {
        let (operator, offset) = operators.read_with_offset()?;
        let next = Point::Next(operators.original_position() as u32);
        let offset = offset as u32;
        if !wanted.contains(&offset) {
            continue;
        }
        if call_type(module, &operator).is_some() {
            found.insert(
                offset,
                Site {
                    layout: Point::Calling(offset),
                    innermost: next,
                },
            );
        } else if matches!(operator, Operator::Loop { .. }) {
            found.insert(
                offset,
                Site {
                    layout: next,
                    innermost: next,
                },
            );
        }
    }
    let site = |offset: &u32| {
        found.get(offset).copied().ok_or(Error::NoPoint {
            function,
            point: Point::Next(*offset),
        })
    };
    offsets.iter().map(site).collect()
}
