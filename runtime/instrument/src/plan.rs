//! Decides, for the whole module, which calls may suspend and which functions poll when they are entered.
//!
//! A call is *checked* when its callee may suspend: after it, the code asks whether the program is unwinding. The
//! check is a poll as well, for it tests the one request word. So recursion needs no poll of its own: every
//! activation polls when the call below it returns, and how deep calls go without a return is bounded by the stack.
//! What is left are loops (see [`crate::analysis`]); cycles of tail calls, which poll on entry; recursion in which calls
//! end by exceptions only, so that functions that catch and can recur poll on entry, too; and call trees without loops
//! that multiply: a function that may execute more than [`LONG_CALL`] instructions checks all its calls.

use crate::module::Module;
use crate::scan::Summary;

/// Instructions that a call may execute before it must pass a safepoint: some tens of microseconds.
const LONG_CALL: u64 = 50_000;
/// Functions that can recur ask the host only from so many instructions on: shorter ones would feel it.
const ASKING_RECURSION: u32 = 100;

/// Choices of the rewriter. None of them shows in an image: what was stored under one choice resumes under another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Puts safepoints also where they are not needed: at every loop header and at the entry of every function that has
    /// safepoints. For comparing, and for stops at more places.
    pub redundant_safepoints: bool,
    /// Lets every safepoint ask the host, so that it can count them. Without that only those at entries of functions can
    /// ask, and all others do nothing but unwind when they are told to, which is faster.
    pub countable_safepoints: bool,
}

/// What is decided for a defined function.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Decision {
    /// A call of the function may come back unwinding.
    pub suspends: bool,
    /// All its calls are checked, whatever their callees.
    pub checks_all_calls: bool,
    /// It polls when entered.
    pub polls_entry: bool,
    /// It is short and can recur. Clones take no notice: whoever makes them later does not know it.
    pub is_tight_recursion: bool,
    /// Some function at or below it is called through a table or a reference, which can be any.
    pub calls_unknown: bool,
    /// It holds safepoints or something else that changes, so it is rewritten (otherwise it is copied).
    pub rewritten: bool,
}

/// The decisions for all functions of a module.
pub(crate) struct Plan {
    imported: u32,
    decisions: Vec<Decision>,
    /// The choices that the decisions follow.
    pub options: Options,
}

impl Plan {
    /// Decides for all functions, given their summaries.
    pub fn new(module: &Module<'_>, summaries: &[Summary], options: Options) -> Self {
        let imported = module.imported_functions;
        let mut plan = Self {
            imported,
            decisions: vec![Decision::default(); summaries.len()],
            options,
        };
        let mut long = vec![0u64; summaries.len()];
        for component in strongly_connected(imported, summaries) {
            plan.decide(module, &component, summaries, &mut long);
        }
        plan
    }

    /// A plan whose decisions were made before.
    pub fn from_decisions(module: &Module<'_>, decisions: Vec<Decision>, options: Options) -> Self {
        Self {
            imported: module.imported_functions,
            decisions,
            options,
        }
    }

    /// The decisions for all defined functions.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// Decides for the members of a strongly connected component of the call graph, whose callees are decided.
    fn decide(
        &mut self,
        module: &Module<'_>,
        component: &[u32],
        summaries: &[Summary],
        instructions: &mut [u64],
    ) {
        let direct = |member: u32| {
            let summary = &summaries[member as usize];
            summary.callees.iter().chain(&summary.tail_callees).copied()
        };
        let within = |function: u32| {
            function
                .checked_sub(self.imported)
                .is_some_and(|defined| component.binary_search(&defined).is_ok())
        };
        let recursive =
            component.len() > 1 || component.iter().any(|&member| direct(member).any(within));
        let suspends = recursive
            || component.iter().any(|&member| {
                let summary = &summaries[member as usize];
                summary.loops
                    || summary.calls_indirectly
                    || summary.tail_calls_indirectly
                    || direct(member).any(|callee| self.suspends(callee))
            });
        let calls_unknown = component.iter().any(|&member| {
            let summary = &summaries[member as usize];
            let defined = direct(member).filter_map(|callee| callee.checked_sub(self.imported));
            summary.calls_indirectly
                || summary.tail_calls_indirectly
                || defined
                    .into_iter()
                    .any(|callee| self.decisions[callee as usize].calls_unknown)
        });
        let length = component.iter().fold(0u64, |sum, &member| {
            let summary = &summaries[member as usize];
            let callees = direct(member).filter_map(|callee| callee.checked_sub(self.imported));
            callees.fold(sum + u64::from(summary.instructions), |sum, callee| {
                sum.saturating_add(instructions[callee as usize])
            })
        });
        let long = !suspends && length > LONG_CALL;
        for &member in component {
            let summary = &summaries[member as usize];
            instructions[member as usize] = if suspends || long { 0 } else { length };
            let tail_cycle = summary.tail_calls_indirectly
                || summary
                    .tail_callees
                    .iter()
                    .any(|&callee| recursive && within(callee));
            // Where the host can be asked: seldom enough not to be felt, often enough to be met soon.
            let calls = summary.calls_indirectly || direct(member).next().is_some();
            let is_tight_recursion = recursive && summary.instructions < ASKING_RECURSION;
            let asks = summary.loops && calls && !is_tight_recursion;
            self.decisions[member as usize] = Decision {
                suspends: suspends || long,
                checks_all_calls: long,
                calls_unknown,
                is_tight_recursion,
                polls_entry: tail_cycle
                    || asks
                    || (summary.catches && (recursive || calls_unknown || long))
                    || (self.options.redundant_safepoints && (suspends || long)),
                // Segments that are dropped are noted, and references to imported functions are to their wrappers.
                rewritten: suspends
                    || long
                    || !summary.segment_operations.is_empty()
                    || summary
                        .referenced
                        .iter()
                        .any(|function| module.is_imported_function(*function)),
            };
        }
    }

    /// Whether a call of function `index` may come back unwinding. Imported functions are the host's: they may.
    pub fn suspends(&self, index: u32) -> bool {
        match index.checked_sub(self.imported) {
            None => true,
            Some(defined) => self.decisions[defined as usize].suspends,
        }
    }

    /// What is decided for function `index`, which must be a defined one.
    pub fn decision(&self, index: u32) -> Decision {
        self.decisions[(index - self.imported) as usize]
    }
}

/// The strongly connected components of the direct call graph over defined functions, callees before callers
/// (Tarjan 1972, with an explicit stack).
fn strongly_connected(imported: u32, summaries: &[Summary]) -> Vec<Vec<u32>> {
    const UNSEEN: u32 = u32::MAX;
    struct Visit {
        function: u32,
        next: usize,
    }
    let successor = |function: u32, next: usize| -> Option<u32> {
        let summary = &summaries[function as usize];
        let split = summary.callees.len();
        let list = if next < split {
            &summary.callees[next..]
        } else {
            summary.tail_callees.get(next - split..)?
        };
        list.first().copied()
    };
    let count = summaries.len();
    let (mut order, mut low) = (vec![UNSEEN; count], vec![0u32; count]);
    let (mut on_stack, mut stack, mut components) =
        (vec![false; count], Vec::new(), Vec::<Vec<u32>>::new());
    let mut seen = 0u32;
    for root in 0..count as u32 {
        if order[root as usize] != UNSEEN {
            continue;
        }
        let mut visits = vec![Visit {
            function: root,
            next: 0,
        }];
        while let Some(visit) = visits.last_mut() {
            let function = visit.function as usize;
            if visit.next == 0 && order[function] == UNSEEN {
                order[function] = seen;
                low[function] = seen;
                seen += 1;
                stack.push(visit.function);
                on_stack[function] = true;
            }
            if let Some(callee) = successor(visit.function, visit.next) {
                visit.next += 1;
                let Some(callee) = callee.checked_sub(imported) else {
                    continue;
                };
                if order[callee as usize] == UNSEEN {
                    visits.push(Visit {
                        function: callee,
                        next: 0,
                    });
                } else if on_stack[callee as usize] {
                    low[function] = low[function].min(order[callee as usize]);
                }
                continue;
            }
            let finished = visit.function;
            visits.pop();
            if let Some(parent) = visits.last() {
                let parent = parent.function as usize;
                low[parent] = low[parent].min(low[finished as usize]);
            }
            if low[finished as usize] == order[finished as usize] {
                let mut component = Vec::new();
                while let Some(member) = stack.pop() {
                    on_stack[member as usize] = false;
                    component.push(member);
                    if member == finished {
                        break;
                    }
                }
                component.sort_unstable();
                components.push(component);
            }
        }
    }
    components
}
