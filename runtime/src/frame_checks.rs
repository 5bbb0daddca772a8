//! What an image from a stranger says of its call stack, checked before anything is done on its word.
//!
//! What is done costs time and memory for each point at which a frame stands, so what can be seen without that is checked
//! first: where frames may stand at all, and how much code would be copied to enter them.

use crate::error::{Error, Result};
use crate::frames::{POINTS_PER_CLONE, Place, SavedFrame, has_layout};
use std::collections::{BTreeMap, BTreeSet};
use wsnap_instrument::{Module, Point, PointLayout, ValueClass};

/// How much code clones may be copies of, in bytes: so many times the module's length, and so much whatever that is. Each
/// function is copied once for [`POINTS_PER_CLONE`] points of it, which no call stack of a program comes near.
const CLONED_PER_BYTE: u64 = 4;
const CLONED_ALWAYS: u64 = 16 << 20;

/// Refuses call stacks that stand at so many points of large functions that clones for them would be many times the module.
pub(crate) fn cost(module: &Module<'_>, points: &BTreeMap<u32, BTreeSet<Point>>) -> Result<()> {
    let limit = module.byte_len() * CLONED_PER_BYTE + CLONED_ALWAYS;
    let copied: u64 = points
        .iter()
        .map(|(function, points)| {
            let copies = points.len().div_ceil(POINTS_PER_CLONE) as u64;
            module.code_bytes(*function).saturating_mul(copies)
        })
        .fold(0, u64::saturating_add);
    if copied > limit {
        return Err(Error::Image(format!(
            "its call stack stands at so many places that {copied} bytes of code would be copied to enter them, and \
             {limit} may be"
        )));
    }
    Ok(())
}

fn wrong(frame: &SavedFrame, what: &str) -> Error {
    Error::Image(format!("a frame of function {} {what}", frame.function))
}

/// Checks that the innermost frame, which has no `next`, can be one, and that all others are calling.
pub(crate) fn place(frame: &SavedFrame, next: Option<&SavedFrame>) -> Result<()> {
    match (frame.place, next) {
        (Place::HostCall | Place::At(Point::Next(_)), None)
        | (Place::At(Point::Calling(_)), Some(_)) => Ok(()),
        (Place::At(Point::Calling(_)), None) => {
            Err(wrong(frame, "waits for a call that is not there"))
        }
        (Place::At(Point::Next(_)), Some(_)) => {
            Err(wrong(frame, "has another above it but calls nothing"))
        }
        (Place::HostCall, Some(_)) => Err(wrong(
            frame,
            "is a call of the host but not the innermost one",
        )),
    }
}

/// Checks that `frame` has the layout of its point, and that what it calls can be the `next` frame. Calls of the host have none.
pub(crate) fn layout(
    module: &Module<'_>,
    layout: Option<&PointLayout>,
    frame: &SavedFrame,
    next: Option<&SavedFrame>,
) -> Result<()> {
    if frame.place == Place::HostCall {
        if !module.is_imported_function(frame.function) {
            return Err(wrong(
                frame,
                "is a call of the host, which the function is not",
            ));
        }
        let (params, _) = module.signature(frame.function).unwrap_or_default();
        let params = params.iter().map(|ty| ValueClass::of(*ty));
        let fits =
            frame.locals.is_empty() && frame.operands.iter().map(|value| value.class).eq(params);
        return fits
            .then_some(())
            .ok_or_else(|| wrong(frame, "has other arguments than the import"));
    }
    let layout = layout.ok_or_else(|| wrong(frame, "stands at no point of it"))?;
    if !has_layout(&frame.locals, &frame.operands, layout) {
        return Err(wrong(frame, "does not have the values that are live there"));
    }
    let Some(next) = next else { return Ok(()) };
    let (_, results) = module.signature(next.function).unwrap_or_default();
    let given = results.iter().map(|ty| ValueClass::of(*ty));
    let fits = given.eq(layout.results.iter().copied());
    fits.then_some(())
        .ok_or_else(|| wrong(frame, "waits for other results than the next frame gives"))
}
