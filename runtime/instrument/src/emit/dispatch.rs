//! How a clone gets to the point at which its activation stood still.
//!
//! A control instruction around such a point begins with a branch to the place, within its own sequence of
//! instructions, at which the point or the next control instruction around it lies; for this the code before the place
//! is put into a block. A local says which point is meant, and is zero once it is reached: then all these branches fall
//! through, and the clone goes on as the function itself would. Where it cannot be zero yet, and so names a point within,
//! they always branch: see `reach.rs`.

use super::Emitter;
use crate::analysis::{Analysis, Construct};
use crate::control::{RESTORE_HEADER_BYTES, RESTORE_POINTER};
use crate::error::{Error, Result};
use crate::points::Point;
use crate::types::{self, ValueClass};
use std::ops::Range;
use wasm_encoder as enc;

/// A point at which a clone can be entered.
pub(crate) struct Target {
    point: Point,
    /// Original locals to restore.
    live: Vec<u32>,
    /// Locals in which operands are parked there, bottom first; none while the point has not been written.
    operands: Option<Vec<(u32, ValueClass)>>,
}

/// The points of a clone in the order of the code.
pub(super) struct Targets {
    function: u32,
    list: Vec<Target>,
    /// For each point as asked for, its place in `list`.
    order: Vec<usize>,
    /// Targets behind the first of these offsets and up to the second are not looked at any more.
    hidden: (u32, u32),
}

impl Targets {
    /// For code that is no clone.
    pub fn none() -> Self {
        Self {
            function: 0,
            list: Vec::new(),
            order: Vec::new(),
            hidden: (0, 0),
        }
    }

    /// The targets for `points`, each of which must have been looked at by `analysis`.
    pub fn new(analysis: &Analysis, function: u32, points: &[Point]) -> Result<Self> {
        let mut sorted = points.to_vec();
        sorted.sort_by_key(|point| (point.offset(), matches!(point, Point::Calling(_))));
        sorted.dedup();
        let mut list = Vec::with_capacity(sorted.len());
        for point in &sorted {
            let live = analysis.live_at(*point).ok_or(Error::NoPoint {
                function,
                point: *point,
            })?;
            list.push(Target {
                point: *point,
                live: live.to_vec(),
                operands: None,
            });
        }
        let mut targets = Self {
            function,
            list,
            order: Vec::new(),
            hidden: (0, 0),
        };
        targets.order = points
            .iter()
            .filter_map(|point| targets.id(*point))
            .collect();
        Ok(targets)
    }

    /// The place of the target at `point`, if it is one. On the way there the entry local holds one more.
    pub fn id(&self, point: Point) -> Option<usize> {
        let first = self
            .list
            .partition_point(|target| target.point.offset() < point.offset());
        // At most two targets have the same offset.
        let offset = point.offset();
        if self.hidden.0 < offset && offset <= self.hidden.1 {
            return None;
        }
        (first..self.list.len())
            .take(2)
            .find(|id| self.list[*id].point == point)
    }

    /// From now on there is none behind `start` and up to `end`, where there was none before either but for what is around
    /// all that was hidden.
    pub fn hide(&mut self, start: u32, end: u32) {
        self.hidden = (start, end);
    }

    fn is_hidden(&self, start: u32, end: u32) -> bool {
        self.hidden.0 <= start && end <= self.hidden.1
    }

    /// Notes where the operands are at a target.
    pub fn describe(&mut self, target: usize, operands: &[(u32, ValueClass)]) {
        self.list[target].operands = Some(operands.to_vec());
    }

    /// The places of the targets behind `start` and up to `end`.
    pub fn within(&self, start: u32, end: u32) -> Range<usize> {
        if self.is_hidden(start, end) {
            return 0..0;
        }
        let up_to = |offset: u32| {
            self.list
                .partition_point(|target| target.point.offset() <= offset)
        };
        up_to(start)..up_to(end)
    }
}

/// A place in a sequence of instructions at which targets lie: one itself, or the control instruction around some.
struct Entrance {
    /// Offset of the instruction before which the code is entered.
    offset: u32,
    /// The first of its targets. They are all up to the next entrance's first.
    first: usize,
}

impl Emitter<'_, '_, '_> {
    /// The entrances of a sequence of instructions between `start` and `end`, whose targets are `within`.
    fn entrances(&self, start: u32, within: Range<usize>) -> Vec<Entrance> {
        let constructs = &self.analysis.constructs;
        let behind =
            |offset: u32| constructs.partition_point(|construct| construct.start <= offset);
        let mut entrances: Vec<Entrance> = Vec::new();
        let mut construct = behind(start);
        let mut first = within.start;
        while first < within.end {
            let target = self.targets.list[first].point.offset();
            while constructs
                .get(construct)
                .is_some_and(|around| around.end < target)
            {
                construct = behind(constructs[construct].end);
            }
            let around = constructs
                .get(construct)
                .filter(|around| around.start < target);
            let (offset, last) =
                around.map_or((target, target), |around| (around.start, around.end));
            if entrances
                .last()
                .is_none_or(|entrance| entrance.offset != offset)
            {
                entrances.push(Entrance { offset, first });
            }
            first = self
                .targets
                .list
                .partition_point(|target| target.point.offset() <= last);
        }
        entrances
    }

    /// At the start of a sequence of instructions that ends at `end`: branches to the targets inside.
    pub(super) fn dispatch(&mut self, start: u32, end: u32) {
        let within = self.targets.within(start, end);
        let entrances = self.entrances(start, within.clone());
        if entrances.is_empty() {
            return;
        }
        let entry = self.locals.entry();
        for _ in &entrances {
            self.sink().block(enc::BlockType::Empty);
        }
        self.nest += entrances.len() as u32;
        if entrances.len() > 1 {
            self.sink().block(enc::BlockType::Empty);
            if self.behind_target {
                // One test passes all targets by when there is none to go to.
                self.sink().local_get(entry).i32_eqz();
                self.hint(true);
                self.sink().br_if(0);
            }
            self.branch_to_entrance(&entrances, within);
            self.sink().end();
        } else if self.behind_target {
            self.sink().local_get(entry);
            self.hint(false);
            self.sink().br_if(0);
        } else {
            self.sink().br(0);
        }
        if let Some(frame) = self.frames.last_mut() {
            frame.arrivals = entrances
                .iter()
                .rev()
                .map(|entrance| entrance.offset)
                .collect();
        }
    }

    /// Branches to the entrance of the target in the entry local; entrance `n` is `n + 1` labels out.
    fn branch_to_entrance(&mut self, entrances: &[Entrance], within: Range<usize>) {
        /// Up to so many targets an entrance, a table is shorter than tests.
        const TABLE_TARGETS: usize = 4;
        let entry = self.locals.entry();
        let last = entrances.len() as u32;
        let mut sink = self.sink();
        if within.len() <= TABLE_TARGETS * entrances.len() {
            let label =
                |target| entrances.partition_point(|entrance| entrance.first <= target) as u32;
            let labels: Vec<u32> = within.clone().map(label).collect();
            sink.local_get(entry)
                .i32_const(within.start as i32 + 1)
                .i32_sub()
                .br_table(labels, last);
            return;
        }
        for (label, next) in (1..).zip(&entrances[1..]) {
            sink.local_get(entry)
                .i32_const(next.first as i32 + 1)
                .i32_lt_u()
                .br_if(label);
        }
        sink.br(last);
    }

    /// Before the instruction at `offset`: ends the block that is branched over to get here.
    pub(super) fn arrive(&mut self, offset: u32) {
        let Some(frame) = self.frames.last_mut() else {
            return;
        };
        if frame.arrivals.last() != Some(&offset) {
            return;
        }
        frame.arrivals.pop();
        self.entered = offset + 1;
        self.park_all();
        self.nest -= 1;
        self.sink().end();
        let Some(id) = self.targets.id(Point::Next(offset)) else {
            return;
        };
        let operands = self.parked_below(self.stack.len());
        self.targets.describe(id, &operands);
        let entry = self.locals.entry();
        let mut sink = self.sink();
        // Other targets at the same place lie further inside and are still to be reached.
        sink.local_get(entry)
            .i32_const(id as i32 + 1)
            .i32_eq()
            .if_(enc::BlockType::Empty);
        sink.i32_const(0).local_set(entry).end();
    }

    /// Before an `if`, whose test is parked on top: puts the test on the stack. In a clone on its way to a target inside
    /// it is the arm with the target that counts. The local of the test is left alone then: within the arm it may hold
    /// an operand that has just been restored.
    pub(super) fn test_with_targets(&mut self, construct: &Construct) {
        let Some(super::Operand::Parked { local: test, .. }) = self.stack.last().copied() else {
            return;
        };
        let middle = construct.middle.unwrap_or(construct.end);
        if self
            .targets
            .within(construct.start, construct.end)
            .is_empty()
        {
            self.sink().local_get(test);
            return;
        }
        let first_in_second = self.targets.within(middle, construct.end).start;
        let entry = self.locals.entry();
        let mut sink = self.sink();
        sink.local_get(entry)
            .if_(enc::BlockType::Result(enc::ValType::I32));
        sink.local_get(entry)
            .i32_const(first_in_second as i32 + 1)
            .i32_lt_u();
        sink.else_().local_get(test).end();
    }

    /// The code before the body of a clone: takes the frame at the restore pointer, restores what is live at the
    /// target that it names, and leaves in the entry local which target that is.
    pub(super) fn emit_prologue(&mut self) -> Result<()> {
        if !self.is_clone() {
            return Ok(());
        }
        let (frame, entry) = (self.locals.scratch(), self.locals.entry());
        let pointer = self.memory(RESTORE_POINTER);
        let (entry_word, size_word) = (self.memory(4), self.memory(8));
        let mut sink = self.sink();
        sink.i32_const(0)
            .i32_load(pointer)
            .local_tee(frame)
            .i32_load(entry_word)
            .local_set(entry);
        sink.i32_const(0)
            .local_get(frame)
            .local_get(frame)
            .i32_load(size_word)
            .i32_add()
            .i32_store(pointer);
        let targets = std::mem::take(&mut self.targets.list);
        let count = targets.len() as u32;
        // $done, then a block per target, the first innermost; the entry local becomes the place in the code's order.
        self.sink().block(enc::BlockType::Empty);
        for _ in &targets {
            self.sink().block(enc::BlockType::Empty);
        }
        let labels: Vec<u32> = self
            .targets
            .order
            .iter()
            .map(|place| *place as u32)
            .collect();
        self.sink().local_get(entry).br_table(labels, 0);
        for (place, target) in targets.iter().enumerate() {
            self.sink()
                .end()
                .i32_const(place as i32 + 1)
                .local_set(entry);
            let operands = target.operands.as_ref().ok_or(Error::NoPoint {
                function: self.targets.function,
                point: target.point,
            })?;
            let live = target
                .live
                .iter()
                .map(|local| (*local, self.locals.class(*local)));
            let values: Vec<(u32, ValueClass)> = live.chain(operands.iter().copied()).collect();
            self.load_frame(frame, &values);
            self.sink().br(count - 1 - place as u32);
        }
        self.sink().end();
        Ok(())
    }

    fn load_frame(&mut self, frame: u32, values: &[(u32, ValueClass)]) {
        let mut offset = RESTORE_HEADER_BYTES;
        for &(local, class) in values {
            let (at, ty, saved) = (
                self.memory(offset),
                self.locals.ty(local),
                self.around.saved_references,
            );
            let mut sink = self.sink();
            load_value(&mut sink, frame, at, class, ty, saved);
            sink.local_set(local);
            offset += class.size_bytes();
        }
    }
}

/// Loads the value of type `ty`, which admits null, that lies at `at` in the frame whose address is in local `frame`.
pub(crate) fn load_value(
    sink: &mut enc::InstructionSink<'_>,
    frame: u32,
    at: enc::MemArg,
    class: ValueClass,
    ty: enc::ValType,
    saved: [Option<u32>; 3],
) {
    sink.local_get(frame);
    match class {
        ValueClass::I32 => sink.i32_load(at),
        ValueClass::I64 => sink.i64_load(at),
        ValueClass::F32 => sink.f32_load(at),
        ValueClass::F64 => sink.f64_load(at),
        ValueClass::V128 => sink.v128_load(at),
        ValueClass::Function => load_reference(sink, at, saved[0], ty),
        ValueClass::Extern => load_reference(sink, at, saved[1], ty),
        ValueClass::Exception => load_reference(sink, at, saved[2], ty),
    };
}

/// Loads a reference through the table of saved ones; the frame holds its index there.
fn load_reference<'s, 'b>(
    sink: &'s mut enc::InstructionSink<'b>,
    at: enc::MemArg,
    saved: Option<u32>,
    ty: enc::ValType,
) -> &'s mut enc::InstructionSink<'b> {
    let enc::ValType::Ref(reference) = ty else {
        return sink;
    };
    let Some(table) = saved else {
        // No function has a reference of its kind.
        return sink.unreachable();
    };
    sink.i32_load(at).table_get(table);
    let abstract_type = matches!(types::class_of_encoded(reference), ValueClass::Function)
        && reference.heap_type == enc::HeapType::FUNC
        || reference.heap_type == enc::HeapType::EXTERN
        || reference.heap_type == types::EXN;
    if abstract_type {
        sink
    } else {
        sink.ref_cast_nullable(reference.heap_type)
    }
}
