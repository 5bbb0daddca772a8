//! What the rewriter found out about a module as a whole, in a form that can be kept beside the compiled code: making
//! clones needs it, and finding it out means looking at every function body.

use crate::bridges;
use crate::emit::SegmentOperation;
use crate::error::Result;
use crate::module::Module;
use crate::plan::{Decision, Options, Plan};
use crate::scan::Summary;
use crate::types::ValueClass;
use std::collections::BTreeSet;
use wasmparser::ValType;

/// The bit of the flags that says whether there are references of the first kind.
const FIRST_REFERENCES: u8 = 2;

/// What holds for a module as a whole.
pub struct Facts {
    pub(crate) plan: Plan,
    /// Functions that references can point to, ascending: the content of the table of referenced functions. Empty if nobody looks
    /// them up, as the table takes room in each instance.
    pub(crate) referenced: Vec<u32>,
    /// Functions that clones call through bridges, in their order there.
    pub(crate) bridged: Vec<u32>,
    /// Tables whose content the program can change.
    pub(crate) changed_tables: Vec<u32>,
    /// Instructions on segments that functions with safepoints execute.
    pub(crate) segment_operations: BTreeSet<SegmentOperation>,
    /// By [`ValueClass::saved_table`]: whether functions can have references of the kind.
    pub(crate) references: [bool; 3],
}

/// By [`ValueClass::saved_table`]: whether functions can have references of the kind.
fn references(module: &Module<'_>, summaries: &[Summary]) -> [bool; 3] {
    let mut references = [false; 3];
    references[ValueClass::Exception.saved_table()] = !module.tags.is_empty();
    for ty in &module.types {
        for ty in ty.params().iter().chain(ty.results()) {
            if let ValType::Ref(_) = ty {
                references[ValueClass::of(*ty).saved_table()] = true;
            }
        }
    }
    for summary in summaries {
        for (can_be, are) in references.iter_mut().zip(summary.references) {
            *can_be |= are;
        }
    }
    references
}

/// Whether anybody will ask which function a reference points to: not if all references are in tables that the program cannot change.
fn references_are_looked_up(
    module: &Module<'_>,
    references: &[bool; 3],
    changed_tables: &[u32],
) -> bool {
    let is_function =
        |ty: ValType| matches!(ty, ValType::Ref(_)) && ValueClass::of(ty) == ValueClass::Function;
    let mut globals = module.globals.iter();
    let mut changed = changed_tables
        .iter()
        .map(|table| &module.tables[*table as usize]);
    references[ValueClass::Function.saved_table()]
        || globals.any(|global| is_function(global.content_type))
        || changed.any(|table| is_function(ValType::Ref(table.element_type)))
}

impl Facts {
    /// What holds for `module`, given what was decided for its functions, their summaries, and those that clones may call.
    pub(crate) fn new(
        module: &Module<'_>,
        plan: Plan,
        summaries: &[Summary],
        called: &[u32],
    ) -> Result<Self> {
        let mentioned = |list: fn(&Summary) -> &Vec<u32>| {
            summaries.iter().flat_map(move |s| list(s).iter().copied())
        };
        let mut changed_tables: Vec<u32> = mentioned(|summary| &summary.changed_tables).collect();
        changed_tables.extend(0..module.imported_tables);
        changed_tables.sort_unstable();
        changed_tables.dedup();
        let references = references(module, summaries);
        let mut referenced =
            module.referenced_functions(mentioned(|summary| &summary.referenced))?;
        let bridged = bridges::choose(module, &plan, summaries, called, &referenced);
        if !references_are_looked_up(module, &references, &changed_tables) {
            referenced = Vec::new();
        }
        Ok(Self {
            bridged,
            plan,
            referenced,
            changed_tables,
            segment_operations: summaries
                .iter()
                .flat_map(|s| s.segment_operations.iter().copied())
                .collect(),
            references,
        })
    }

    /// Functions that references can point to, ascending; none if nobody looks them up. The table exported as
    /// [`crate::Name::ReferencedFunctions`] holds them in this order.
    pub fn referenced_functions(&self) -> &[u32] {
        &self.referenced
    }

    /// Tables whose content the program can change, ascending.
    pub fn changed_tables(&self) -> &[u32] {
        &self.changed_tables
    }

    /// The facts as bytes, for a cache on the same machine: not a stable format.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![
            u8::from(self.plan.options.redundant_safepoints)
                | u8::from(self.plan.options.countable_safepoints) << 1
                | (0..).zip(self.references).fold(0, |bits, (kind, can_be)| {
                    bits | u8::from(can_be) << (FIRST_REFERENCES + kind)
                }),
        ];
        let operations = self
            .segment_operations
            .iter()
            .flat_map(|operation| operation.to_words())
            .collect();
        let lists = [
            &self.referenced,
            &self.bridged,
            &self.changed_tables,
            &operations,
        ];
        for list in lists {
            bytes.extend((list.len() as u32).to_le_bytes());
            bytes.extend(list.iter().flat_map(|index| index.to_le_bytes()));
        }
        bytes.extend(self.plan.decisions().iter().map(|decision| {
            u8::from(decision.suspends)
                | u8::from(decision.checks_all_calls) << 1
                | u8::from(decision.polls_entry) << 2
                | u8::from(decision.rewritten) << 3
        }));
        bytes
    }

    /// The facts of `module` from what [`Facts::to_bytes`] gave; none if they do not fit the module.
    pub fn from_bytes(module: &Module<'_>, bytes: &[u8]) -> Option<Self> {
        let (flags, mut rest) = bytes.split_first()?;
        let options = Options {
            redundant_safepoints: flags & 1 != 0,
            countable_safepoints: flags & 2 != 0,
        };
        let mut lists = [const { Vec::new() }; 4];
        for list in &mut lists {
            let (count, after) = rest.split_first_chunk::<4>()?;
            let count = u32::from_le_bytes(*count) as usize;
            let (content, after) = after.split_at_checked(count.checked_mul(4)?)?;
            list.extend(
                content
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|chunk| u32::from_le_bytes(*chunk)),
            );
            rest = after;
        }
        if rest.len() != module.bodies.len() {
            return None;
        }
        let decisions = rest.iter().map(|bits| Decision {
            suspends: bits & 1 != 0,
            checks_all_calls: bits & 2 != 0,
            polls_entry: bits & 4 != 0,
            rewritten: bits & 8 != 0,
            ..Decision::default()
        });
        let [referenced, bridged, changed_tables, operations] = lists;
        let segment_operations = operations
            .as_chunks::<3>()
            .0
            .iter()
            .map(|words| SegmentOperation::from_words(module, *words));
        let in_range = |list: &[u32], end: usize| list.iter().all(|index| (*index as usize) < end);
        if !in_range(&referenced, module.functions.len())
            || !in_range(&bridged, module.functions.len())
            || !in_range(&changed_tables, module.tables.len())
            || !bridges::are_chosen(module, &bridged)
        {
            return None;
        }
        let plan = Plan::from_decisions(module, decisions.collect(), options);
        Some(Self {
            plan,
            referenced,
            bridged,
            changed_tables,
            segment_operations: segment_operations.collect::<Option<_>>()?,
            references: [0, 1, 2].map(|kind| flags & 1 << (FIRST_REFERENCES + kind) != 0),
        })
    }
}
