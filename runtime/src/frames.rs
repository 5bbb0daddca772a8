//! Frames between the control memory and the guest's own terms.
//!
//! A *raw* frame is what code of the rewritten module writes and clones read; its form is the rewriter's business. A
//! [`SavedFrame`] says the same in terms of the original module, except that references are still numbers in the tables
//! of saved references. What an image says of frames is checked in [`crate::frame_checks`].

use crate::error::{Error, Result};
use crate::frame_checks;
use crate::layouts::{EntryLayouts, KnownFunction};
use crate::program::Program;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use wsnap_instrument::control::{
    RESTORE_HEADER_BYTES, SAVED_FUNCTION, SAVED_HEADER_BYTES, SAVED_SITE, SAVED_SIZE, SAVED_STAGED,
};
use wsnap_instrument::{CloneRequest, Module, Places, Point, PointLayout, Staged, ValueClass};

/// Where an activation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a function of the module.
    At(Point),
    /// Before a call of an imported function that is made again.
    HostCall,
}

/// A value of a frame. The bits of a reference are its number in the table of saved references of its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SavedValue {
    pub class: ValueClass,
    pub bits: u128,
}

/// An activation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SavedFrame {
    pub function: u32,
    pub place: Place,
    pub locals: Vec<(u32, SavedValue)>,
    pub operands: Vec<SavedValue>,
}

/// A raw frame that has been located, not read.
struct Located<'b> {
    function: u32,
    site: u32,
    /// How many of its values were staged.
    staged: Staged,
    values: &'b [u8],
}

/// The value of `class` at `offset` in a frame whose values are `values`, of which the header is none.
fn value_at(values: &[u8], offset: u32, class: ValueClass) -> Result<SavedValue> {
    let mut value = values
        .get(offset as usize..)
        .ok_or_else(|| corrupt("a frame lacks a value"))?;
    take(&mut value, class)
}

fn corrupt(what: &str) -> Error {
    Error::Internal(wasmtime::Error::msg(format!(
        "the frame buffer is corrupt: {what}"
    )))
}

fn word(bytes: &[u8], offset: usize) -> Result<u32> {
    let word = bytes.get(offset..).and_then(|rest| rest.first_chunk::<4>());
    Ok(u32::from_le_bytes(
        *word.ok_or_else(|| corrupt("a frame is cut off"))?,
    ))
}

/// Reads the raw frames in `bytes`, innermost first there. Returns them outermost first.
pub(crate) fn read(program: &Program, bytes: &[u8]) -> Result<Vec<SavedFrame>> {
    let module = program.parsed()?;
    let facts = program.facts()?;
    let located = locate(bytes)?;
    let mut offsets: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for frame in located
        .iter()
        .filter(|frame| !module.is_imported_function(frame.function))
    {
        offsets
            .entry(frame.function)
            .or_default()
            .insert(frame.site);
    }
    let mut known = HashMap::new();
    for (function, offsets) in &offsets {
        let innermost = located.first().filter(|frame| frame.function == *function);
        let innermost = innermost.map(|frame| frame.site);
        let mut of_function = program.layouts().function(*function);
        if of_function.lacks(offsets, innermost) {
            // What is made of it goes into an image. Nobody waits for what is found out here.
            program.verify_bytes()?;
            let learning = Arc::make_mut(&mut of_function);
            learning.learn(module, facts, *function, offsets, innermost)?;
            program.layouts().remember(*function, of_function.clone());
        }
        known.insert(*function, of_function);
    }
    let mut frames = Vec::with_capacity(located.len());
    let mut places = HashMap::new();
    for (depth, frame) in located.iter().enumerate() {
        frames.push(if module.is_imported_function(frame.function) {
            read_host_call(module, frame)?
        } else {
            let known = known.get(&frame.function);
            let known = known.ok_or_else(|| corrupt("a frame is of no function"))?;
            let places = places
                .entry((frame.function, frame.staged))
                .or_insert_with(|| known.places(frame.staged));
            read_frame(frame, known, places.as_ref(), depth == 0)?
        });
    }
    frames.reverse();
    Ok(frames)
}

fn locate(mut bytes: &[u8]) -> Result<Vec<Located<'_>>> {
    let mut located = Vec::new();
    while !bytes.is_empty() {
        let size = word(bytes, SAVED_SIZE as usize)? as usize;
        let frame = bytes
            .get(..size)
            .filter(|frame| frame.len() >= SAVED_HEADER_BYTES as usize);
        let frame = frame.ok_or_else(|| corrupt("a frame has no room"))?;
        located.push(Located {
            function: word(frame, SAVED_FUNCTION as usize)?,
            site: word(frame, SAVED_SITE as usize)?,
            staged: Staged::from_word(word(frame, SAVED_STAGED as usize)?),
            values: &frame[SAVED_HEADER_BYTES as usize..],
        });
        bytes = &bytes[size..];
    }
    Ok(located)
}

/// Takes a value of `class` off the front of `bytes`.
fn take(bytes: &mut &[u8], class: ValueClass) -> Result<SavedValue> {
    let (value, rest) = bytes
        .split_at_checked(class.size_bytes() as usize)
        .ok_or_else(|| corrupt("a frame lacks a value"))?;
    *bytes = rest;
    let mut bits = [0; 16];
    bits[..value.len()].copy_from_slice(value);
    Ok(SavedValue {
        class,
        bits: u128::from_le_bytes(bits),
    })
}

fn read_host_call(module: &Module<'_>, frame: &Located<'_>) -> Result<SavedFrame> {
    let (params, _) = module
        .signature(frame.function)
        .ok_or_else(|| corrupt("a function does not exist"))?;
    let mut values = frame.values;
    let operands = params
        .iter()
        .map(|ty| take(&mut values, ValueClass::of(*ty)))
        .collect::<Result<_>>()?;
    Ok(SavedFrame {
        function: frame.function,
        place: Place::HostCall,
        locals: Vec::new(),
        operands,
    })
}

/// Reads the values of a frame. It was stored with the layout of its safepoint; the innermost one stands behind the call where
/// it stopped, has the results on its operand stack, and fewer locals may be live.
fn read_frame(
    frame: &Located<'_>,
    known: &KnownFunction,
    places: Option<&Places>,
    is_innermost: bool,
) -> Result<SavedFrame> {
    let unknown = || corrupt("a frame stands at no point");
    let site = known.site(frame.site).ok_or_else(unknown)?;
    let stored = known.point(site.layout).ok_or_else(unknown)?;
    let point = if is_innermost {
        site.innermost
    } else {
        site.layout
    };
    let layout = known.point(point).ok_or_else(unknown)?;
    let places = places.ok_or_else(unknown)?;
    let mut behind = places.behind();
    let mut locals = Vec::with_capacity(layout.locals.len());
    for (local, class) in &stored.locals {
        let place = places.local(*local);
        let slot = place.unwrap_or_else(|| behind.give(*class));
        let value = value_at(frame.values, slot.offset(frame.staged), *class)?;
        if layout
            .locals
            .binary_search_by_key(local, |(local, _)| *local)
            .is_ok()
        {
            locals.push((*local, value));
        }
    }
    let mut operands = Vec::with_capacity(layout.operands.len());
    for class in stored.operands.iter().chain(&stored.results) {
        let offset = behind.give(*class).offset(frame.staged);
        operands.push(value_at(frame.values, offset, *class)?);
    }
    operands.truncate(layout.operands.len());
    let size = frame.staged.size_bytes() + behind.direct_bytes();
    if frame.values.len() != size as usize || !has_layout(&locals, &operands, layout) {
        return Err(corrupt("a frame does not have the layout of its point"));
    }
    Ok(SavedFrame {
        function: frame.function,
        place: Place::At(point),
        locals,
        operands,
    })
}

pub(crate) fn has_layout(
    locals: &[(u32, SavedValue)],
    operands: &[SavedValue],
    layout: &PointLayout,
) -> bool {
    let locals = locals.iter().map(|(local, value)| (*local, value.class));
    locals.eq(layout.locals.iter().copied())
        && operands
            .iter()
            .map(|value| value.class)
            .eq(layout.operands.iter().copied())
}

/// How many points one clone is made for at most: what restores their values is part of its code, whose size is limited.
pub(crate) const POINTS_PER_CLONE: usize = 256;

/// What clones the frames need, after checking that they can follow each other.
///
/// # Errors
///
/// [`Error::Image`] if frames stand where none can, or clones for them would be too much code.
pub(crate) fn requests(module: &Module<'_>, frames: &[SavedFrame]) -> Result<Vec<CloneRequest>> {
    // Before anything is looked up for a point: at calls there are no more of them than the rewriter has seen already.
    for (depth, frame) in frames.iter().enumerate() {
        frame_checks::place(frame, frames.get(depth + 1))?;
    }
    let mut points: BTreeMap<u32, BTreeSet<Point>> = BTreeMap::new();
    for frame in frames {
        let wanted = points.entry(frame.function).or_default();
        if let Place::At(point) = frame.place {
            wanted.insert(point);
        }
    }
    frame_checks::cost(module, &points)?;
    let mut requests = Vec::with_capacity(points.len());
    for (function, points) in points {
        let exists = function < module.function_count();
        if !exists || module.is_imported_function(function) != points.is_empty() {
            return Err(Error::Image(format!(
                "a frame cannot belong to function {function}"
            )));
        }
        let points: Vec<Point> = points.into_iter().collect();
        if points.is_empty() {
            requests.push(CloneRequest { function, points });
        } else {
            let chunks = points.chunks(POINTS_PER_CLONE);
            requests.extend(chunks.map(|points| CloneRequest {
                function,
                points: points.to_vec(),
            }));
        }
    }
    Ok(requests)
}

/// Lays frames out for restoring by the clones of `requests`, which are theirs: bytes for the control memory, outermost first.
/// Checks that they fit the module and each other.
///
/// # Errors
///
/// [`Error::Image`] if a frame does not have the layout of its point, or calls what its neighbour is not.
pub(crate) fn write(
    module: &Module<'_>,
    requests: &[CloneRequest],
    layouts: &EntryLayouts,
    frames: &[SavedFrame],
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for (depth, frame) in frames.iter().enumerate() {
        let (clone, entry) = clone_of(requests, frame)?;
        let layout = layouts.get(clone, entry);
        frame_checks::layout(module, layout, frame, frames.get(depth + 1))?;
        write_frame(&mut bytes, clone, entry, frame);
    }
    Ok(bytes)
}

/// Which clone restores a frame, and at which of its points.
pub(crate) fn clone_of(requests: &[CloneRequest], frame: &SavedFrame) -> Result<(usize, usize)> {
    let unknown = || Error::Image(format!("function {} has no such point", frame.function));
    // Both functions and, for one function, the points ascend.
    let clone = requests.partition_point(|request| match frame.place {
        Place::At(point) => {
            (request.function, request.points.last()) < (frame.function, Some(&point))
        }
        Place::HostCall => request.function < frame.function,
    });
    let request = requests
        .get(clone)
        .filter(|request| request.function == frame.function)
        .ok_or_else(unknown)?;
    let entry = match frame.place {
        Place::HostCall => 0,
        Place::At(point) => request
            .points
            .binary_search(&point)
            .map_err(|_| unknown())?,
    };
    Ok((clone, entry))
}

fn write_frame(bytes: &mut Vec<u8>, clone: usize, entry: usize, frame: &SavedFrame) {
    let start = bytes.len();
    bytes.resize(start + RESTORE_HEADER_BYTES as usize, 0);
    for value in frame
        .locals
        .iter()
        .map(|(_, value)| value)
        .chain(&frame.operands)
    {
        bytes.extend_from_slice(&value.bits.to_le_bytes()[..value.class.size_bytes() as usize]);
    }
    let size = (bytes.len() - start) as u32;
    for (place, word) in [clone as u32, entry as u32, size].into_iter().enumerate() {
        bytes[start + 4 * place..start + 4 * place + 4].copy_from_slice(&word.to_le_bytes());
    }
}
