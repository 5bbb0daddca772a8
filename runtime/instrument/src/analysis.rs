//! What holds at the points of a function at which it can stand still: which locals are live there, and which loops
//! must poll.
//!
//! The function is cut into basic blocks; liveness is the standard backward data flow over them, for as many locals
//! at a time as a machine word has bits, so its memory grows with the size of the code only. Dead code (behind an
//! unconditional branch) is left out, here as in the rewritten module.

use crate::error::Result;
use crate::liveness::{Access, Flow, Live};
use crate::module::Module;
use crate::plan::Plan;
use crate::points::Point;
use wasmparser::{BlockType, Catch, FunctionBody, Operator, ValType};

/// A structured control instruction in live code.
#[derive(Clone, Debug)]
pub(crate) struct Construct {
    /// Offset of the instruction that opens it.
    pub start: u32,
    /// Offset of its `else`, for an `if` that has one.
    pub middle: Option<u32>,
    /// Offset of its `end`.
    pub end: u32,
    pub is_loop: bool,
    /// Whether it is a loop that polls: on some way round there is no other safepoint.
    pub polls: bool,
    /// Whether it holds a call that is checked.
    pub checks_calls: bool,
    /// Loops around it, itself included.
    pub loops: u32,
    /// For loops: whether memory may have been written on a way round, so that it has to be read anew.
    pub is_fenced: bool,
    /// Whether a safepoint or a point asked for lies inside.
    pub holds_points: bool,
}

/// The result of looking at one function.
pub(crate) struct Analysis {
    /// The control instructions of live code, in the order of their start.
    pub constructs: Vec<Construct>,
    /// The writes of locals in live code: local and offset, ascending by offset.
    pub writes: Vec<(u32, u32)>,
    /// The branches back to loops in live code, ascending by offset: of the loops around each, how many, counted from outside,
    /// have passed a safepoint since their header on every path.
    checked: Vec<(u32, u32)>,
    /// The live locals at points.
    pub live: Live,
    /// The locals that are live at some safepoint, ascending.
    pub saved: Vec<u32>,
}

impl Analysis {
    /// Looks at the body of `function`; `asked` are points at which liveness is wanted besides those of the plan.
    pub fn new(module: &Module<'_>, plan: &Plan, function: u32, asked: &[Point]) -> Result<Self> {
        Walker::new(plan, function, asked).walk(module.body(function))
    }

    /// Whether the branch at `offset` goes back to the loop on ways that have passed a safepoint since its header.
    pub fn is_checked_way(&self, offset: u32, to: &Construct) -> bool {
        let place = self.checked.binary_search_by_key(&offset, |way| way.0);
        place.is_ok_and(|place| self.checked[place].1 >= to.loops)
    }

    /// The locals that are live at `point`, ascending, if the point is one of those looked at.
    pub fn live_at(&self, point: Point) -> Option<&[u32]> {
        self.live.at(point)
    }
}

/// Whether a call of the kind of `operator` is checked, given the plan. `None`: it is no call that leaves a frame.
pub(crate) fn is_checked_call(
    plan: &Plan,
    checks_all: bool,
    operator: &Operator<'_>,
) -> Option<bool> {
    match *operator {
        Operator::Call { function_index } => Some(checks_all || plan.suspends(function_index)),
        Operator::CallIndirect { .. } | Operator::CallRef { .. } => Some(true),
        _ => None,
    }
}

/// Whether an instruction, other than a call, writes to memory.
fn is_store(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::I32Store { .. }
            | Operator::I64Store { .. }
            | Operator::F32Store { .. }
            | Operator::F64Store { .. }
            | Operator::I32Store8 { .. }
            | Operator::I32Store16 { .. }
            | Operator::I64Store8 { .. }
            | Operator::I64Store16 { .. }
            | Operator::I64Store32 { .. }
            | Operator::V128Store { .. }
    )
}

#[derive(PartialEq)]
enum Kind {
    Block,
    Loop,
    If,
    Try,
}

/// An open control instruction.
struct Frame {
    kind: Kind,
    /// Index among the constructs; none for the function itself.
    construct: Option<usize>,
    /// For loops: the block of the header. For ifs: the block that ends with the test.
    block: u32,
    /// Blocks that branch to the end.
    pending: Vec<u32>,
    /// Whether an else has been seen.
    has_else: bool,
    /// For try_table: blocks or frames to which exceptions go, see `Handler`.
    handlers: Vec<Handler>,
    /// Loops around this frame, itself included.
    loops: u32,
    /// What holds on all branches to the end.
    passed: Passed,
    /// What held where it was opened.
    at_start: Passed,
}

/// Of the loops around a point, how many, counted from outside, have passed something since their header.
#[derive(Clone, Copy)]
struct Passed {
    /// A safepoint, on every path from there.
    safepoint: u32,
    /// A store, or a call, on some path from there. Where another path without one joins it, compilers no longer know
    /// what memory holds.
    fence: u32,
}

impl Passed {
    /// Where no path has come from yet.
    const NOWHERE: Self = Self {
        safepoint: u32::MAX,
        fence: 0,
    };

    /// What holds where two paths meet.
    fn meet(self, other: Self) -> Self {
        Self {
            safepoint: self.safepoint.min(other.safepoint),
            fence: self.fence.max(other.fence),
        }
    }

    /// What is known of no more than the outer `loops`.
    fn within(self, loops: u32) -> Self {
        Self {
            safepoint: self.safepoint.min(loops),
            fence: self.fence.min(loops),
        }
    }
}

/// Where an exception may go on: the label of the frame with this index on the control stack.
type Handler = usize;

struct Walker<'m> {
    plan: &'m Plan,
    checks_all: bool,
    polls_entry: bool,
    asked: Vec<Point>,
    flow: Flow,
    frames: Vec<Frame>,
    constructs: Vec<Construct>,
    writes: Vec<(u32, u32)>,
    checked: Vec<(u32, u32)>,
    /// The points at which frames are stored: at entry and behind calls; headers of loops, by their construct, are
    /// apart until it is known which of them poll.
    safepoints: Vec<Point>,
    headers: Vec<(usize, Point)>,
    /// The current block, or none in dead code.
    block: Option<u32>,
    /// How many control instructions are open that began in dead code.
    dead_depth: u32,
    passed: Passed,
}

impl<'m> Walker<'m> {
    fn new(plan: &'m Plan, function: u32, asked: &[Point]) -> Self {
        let decision = plan.decision(function);
        let mut asked = asked.to_vec();
        asked.sort_unstable();
        Self {
            plan,
            checks_all: decision.checks_all_calls,
            polls_entry: decision.polls_entry,
            asked,
            flow: Flow::new(),
            frames: Vec::new(),
            constructs: Vec::new(),
            writes: Vec::new(),
            checked: Vec::new(),
            safepoints: Vec::new(),
            headers: Vec::new(),
            block: None,
            dead_depth: 0,
            passed: Passed::NOWHERE.within(0),
        }
    }

    fn walk(mut self, body: &FunctionBody<'_>) -> Result<Analysis> {
        let first = self.flow.begin_block();
        self.block = Some(first);
        self.frames.push(Frame {
            kind: Kind::Block,
            construct: None,
            block: first,
            pending: Vec::new(),
            has_else: false,
            handlers: Vec::new(),
            loops: 0,
            passed: Passed::NOWHERE,
            at_start: self.passed,
        });
        let mut operators = body.get_operators_reader()?;
        if self.polls_entry {
            let offset = operators.original_position() as u32;
            self.flow.note(Access::Point(Point::Next(offset)));
            self.safepoints.push(Point::Next(offset));
        }
        while !operators.eof() {
            let (operator, offset) = operators.read_with_offset()?;
            self.visit(
                &operator,
                offset as u32,
                operators.original_position() as u32,
            );
        }
        let polled = self.headers.iter().filter(|header| {
            let construct = &self.constructs[header.0];
            construct.polls
        });
        self.safepoints.extend(polled.map(|header| header.1));
        let live = self.flow.solve();
        let saved = live.at_any(&self.safepoints);
        Ok(Analysis {
            constructs: self.constructs,
            writes: self.writes,
            checked: self.checked,
            live,
            saved,
        })
    }

    fn visit(&mut self, operator: &Operator<'_>, offset: u32, next: u32) {
        if self.block.is_none() {
            return self.visit_dead(operator, offset);
        }
        self.note_asked(Point::Next(offset));
        match *operator {
            Operator::LocalGet { local_index } => self.flow.note(Access::Use(local_index)),
            Operator::LocalSet { local_index } | Operator::LocalTee { local_index } => {
                self.flow.note(Access::Define(local_index));
                self.writes.push((local_index, offset));
            }
            Operator::Block { .. } => self.open(Kind::Block, offset, next),
            Operator::Loop { .. } => self.open(Kind::Loop, offset, next),
            Operator::If { .. } => self.open(Kind::If, offset, next),
            Operator::TryTable { ref try_table } => {
                let handlers = self.handlers_of(&try_table.catches);
                self.open(Kind::Try, offset, next);
                self.top().handlers = handlers;
            }
            Operator::Else => self.alternative(offset),
            Operator::End => self.close(offset),
            Operator::Br { relative_depth } => {
                self.branch(relative_depth, offset);
                self.block = None;
            }
            Operator::BrIf { relative_depth }
            | Operator::BrOnNull { relative_depth }
            | Operator::BrOnNonNull { relative_depth }
            | Operator::BrOnCast { relative_depth, .. }
            | Operator::BrOnCastFail { relative_depth, .. } => {
                self.branch(relative_depth, offset);
                self.fall_into_new_block();
            }
            Operator::BrTable { ref targets } => {
                for target in targets.targets().flatten().chain([targets.default()]) {
                    self.branch(target, offset);
                }
                self.block = None;
            }
            Operator::Throw { .. } | Operator::ThrowRef => {
                self.throw();
                self.block = None;
            }
            Operator::Return
            | Operator::Unreachable
            | Operator::ReturnCall { .. }
            | Operator::ReturnCallIndirect { .. }
            | Operator::ReturnCallRef { .. } => self.block = None,
            _ if is_store(operator) => self.passed.fence = self.top().loops,
            _ => self.visit_call(operator, offset, next),
        }
    }

    fn visit_call(&mut self, operator: &Operator<'_>, offset: u32, next: u32) {
        let Some(checked) = is_checked_call(self.plan, self.checks_all, operator) else {
            return;
        };
        self.passed.fence = self.top().loops;
        let innermost = self
            .frames
            .iter()
            .rev()
            .find(|frame| frame.kind == Kind::Try);
        let throws = innermost.is_some_and(|frame| !frame.handlers.is_empty());
        let asked = self.asked.binary_search(&Point::Calling(offset)).is_ok();
        if checked || asked {
            self.flow.note(Access::Point(Point::Calling(offset)));
            self.mark_points();
        }
        if throws {
            self.throw();
            self.fall_into_new_block();
        }
        if checked {
            self.mark_checked_call();
            self.flow.note(Access::Point(Point::Next(next)));
            self.safepoints.push(Point::Calling(offset));
            self.passed.safepoint = self.top().loops;
        }
    }

    fn top(&mut self) -> &mut Frame {
        self.frames
            .last_mut()
            .expect("the function's own frame is closed last")
    }

    /// Notes that a point lies here, for all constructs around.
    fn mark_points(&mut self) {
        for frame in self.frames.iter().rev() {
            let Some(construct) = frame.construct else {
                break;
            };
            if std::mem::replace(&mut self.constructs[construct].holds_points, true) {
                break;
            }
        }
    }

    /// Notes that a call that is checked lies here, for all constructs around.
    fn mark_checked_call(&mut self) {
        for construct in self.frames.iter().rev().filter_map(|frame| frame.construct) {
            if std::mem::replace(&mut self.constructs[construct].checks_calls, true) {
                break;
            }
        }
    }

    fn note_asked(&mut self, point: Point) {
        if self.asked.binary_search(&point).is_ok() {
            self.flow.note(Access::Point(point));
            self.mark_points();
        }
    }

    fn open(&mut self, kind: Kind, offset: u32, next: u32) {
        let current = self
            .block
            .expect("control instructions of dead code are counted elsewhere");
        let mut loops = self.top().loops;
        let mut block = current;
        if kind == Kind::Loop {
            loops += 1;
            // Nothing is known of the new loop; what is known of those around it stays.
            self.passed = self.passed.within(loops - 1);
            block = self.fall_into_new_block();
            self.flow.note(Access::Point(Point::Next(next)));
            self.headers
                .push((self.constructs.len(), Point::Next(next)));
        }
        if kind == Kind::If {
            self.fall_into_new_block();
        }
        let polls = kind == Kind::Loop && self.plan.options.redundant_safepoints;
        self.constructs.push(Construct {
            start: offset,
            middle: None,
            end: 0,
            is_loop: kind == Kind::Loop,
            polls,
            checks_calls: false,
            loops,
            is_fenced: false,
            holds_points: false,
        });
        self.frames.push(Frame {
            kind,
            construct: Some(self.constructs.len() - 1),
            block,
            pending: Vec::new(),
            has_else: false,
            handlers: Vec::new(),
            loops,
            passed: Passed::NOWHERE,
            at_start: self.passed,
        });
        if polls {
            self.mark_points();
        }
    }

    fn fall_into_new_block(&mut self) -> u32 {
        let next = self.flow.begin_block();
        if let Some(block) = self.block {
            self.flow.edge(block, next);
        }
        self.block = Some(next);
        next
    }

    fn branch(&mut self, depth: u32, offset: u32) {
        let target = self.frames.len() - 1 - depth as usize;
        let is_noted = self.checked.last().is_some_and(|way| way.0 == offset);
        if self.frames[target].kind == Kind::Loop && !is_noted {
            self.checked.push((offset, self.passed.safepoint));
        }
        self.branch_to(target, true);
    }

    /// An edge from the current block to the label of the frame with index `target`.
    fn branch_to(&mut self, target: usize, by_branch: bool) {
        let Some(block) = self.block else { return };
        let passed = self.passed;
        let frame = &mut self.frames[target];
        if frame.kind == Kind::Loop {
            let (header, loops) = (frame.block, frame.loops);
            let construct = frame.construct;
            self.flow.edge(block, header);
            let is_fenced = passed.fence >= loops || !by_branch;
            let is_polled = passed.safepoint >= loops && by_branch;
            if let Some(construct) = construct {
                self.constructs[construct].is_fenced |= is_fenced;
                self.constructs[construct].polls |= !is_polled;
            }
            if !is_polled {
                // Its own frame is on the control stack: it and those around hold a safepoint now.
                self.mark_points_from(target);
            }
        } else {
            frame.pending.push(block);
            frame.passed = frame.passed.meet(passed);
        }
    }

    fn mark_points_from(&mut self, frame: usize) {
        for frame in self.frames[..=frame].iter().rev() {
            let Some(construct) = frame.construct else {
                break;
            };
            self.constructs[construct].holds_points = true;
        }
    }

    fn handlers_of(&mut self, catches: &[Catch]) -> Vec<Handler> {
        let depth = self.frames.len() - 1;
        let mut handlers: Vec<Handler> = Vec::new();
        let mut catches_all = false;
        for catch in catches {
            let (label, all) = match *catch {
                Catch::One { label, .. } | Catch::OneRef { label, .. } => (label, false),
                Catch::All { label } | Catch::AllRef { label } => (label, true),
            };
            handlers.push(depth - label as usize);
            catches_all |= all;
        }
        if !catches_all {
            let outer = self
                .frames
                .iter()
                .rev()
                .find(|frame| frame.kind == Kind::Try);
            handlers.extend(
                outer
                    .into_iter()
                    .flat_map(|frame| frame.handlers.iter().copied()),
            );
        }
        handlers.sort_unstable();
        handlers.dedup();
        handlers
    }

    /// Edges from the current block to wherever an exception thrown here goes on in this function.
    fn throw(&mut self) {
        let innermost = self
            .frames
            .iter()
            .rev()
            .find(|frame| frame.kind == Kind::Try);
        let handlers = innermost
            .map(|frame| frame.handlers.clone())
            .unwrap_or_default();
        for handler in handlers {
            self.branch_to(handler, false);
        }
    }

    fn alternative(&mut self, offset: u32) {
        let current = self.block.take();
        let passed = self.passed;
        let frame = self.top();
        if let Some(block) = current {
            frame.pending.push(block);
            frame.passed = frame.passed.meet(passed);
        }
        frame.has_else = true;
        let (test, construct, at_start) = (frame.block, frame.construct, frame.at_start);
        let block = self.flow.begin_block();
        self.flow.edge(test, block);
        self.block = Some(block);
        self.passed = at_start;
        if let Some(construct) = construct {
            self.constructs[construct].middle = Some(offset);
        }
    }

    fn close(&mut self, offset: u32) {
        let Some(frame) = self.frames.pop() else {
            return;
        };
        if let Some(construct) = frame.construct {
            self.constructs[construct].end = offset;
        }
        let mut sources = frame.pending;
        let mut passed = frame.passed;
        if let Some(block) = self.block {
            sources.push(block);
            passed = passed.meet(self.passed);
        }
        if frame.kind == Kind::If && !frame.has_else {
            sources.push(frame.block);
            passed = passed.meet(frame.at_start);
        }
        let outer_loops = self.frames.last().map_or(0, |frame| frame.loops);
        // Even a block that nothing reaches ends in code that counts as live.
        let block = self.flow.begin_block();
        for source in sources {
            self.flow.edge(source, block);
        }
        self.block = Some(block);
        self.passed = passed.within(outer_loops);
    }

    fn visit_dead(&mut self, operator: &Operator<'_>, offset: u32) {
        match operator {
            Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::TryTable { .. } => {
                self.dead_depth += 1;
            }
            Operator::Else if self.dead_depth == 0 => self.alternative(offset),
            Operator::End if self.dead_depth == 0 => self.close(offset),
            Operator::End => self.dead_depth -= 1,
            _ => {}
        }
    }
}

/// Parameter and result types of a block type.
pub(crate) fn block_signature<'t>(
    module: &'t Module<'_>,
    ty: BlockType,
) -> (&'t [ValType], Vec<ValType>) {
    match ty {
        BlockType::Empty => (&[], Vec::new()),
        BlockType::Type(ty) => (&[], vec![ty]),
        BlockType::FuncType(index) => {
            let ty = &module.types[index as usize];
            (ty.params(), ty.results().to_vec())
        }
    }
}
