//! What is known of the layouts of frames. Finding them out means looking at whole functions, which takes milliseconds for the
//! main loop of an interpreter, so what was found is kept: beside a program for frames that it saves, beside compiled clones for
//! frames that they restore.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use wsnap_instrument::{
    CloneRequest, Facts, Module, Places, Point, PointLayout, Site, Staged, ValueClass, layouts,
    sites,
};

/// So many values in layouts are kept of a program; then all are forgotten. A function that was met in a snapshot has hundreds.
const VALUES_MAX: usize = 1 << 20;

/// What is known of the functions of a program that had frames in snapshots.
#[derive(Default)]
pub(crate) struct Layouts {
    functions: HashMap<u32, Arc<KnownFunction>>,
    values: usize,
}

/// What is known of a function.
#[derive(Clone, Default)]
pub(crate) struct KnownFunction {
    /// The locals that its safepoints save, set with the first points.
    saved: Option<Vec<(u32, ValueClass)>>,
    /// Safepoints, by the offsets that frames name them by.
    sites: HashMap<u32, Site>,
    points: HashMap<Point, PointLayout>,
}

impl Layouts {
    /// What is known of `function`.
    pub fn function(&self, function: u32) -> Arc<KnownFunction> {
        self.functions.get(&function).cloned().unwrap_or_default()
    }

    /// Remembers what is known of `function`. What somebody else has found out about it meanwhile is found out again.
    pub fn remember(&mut self, function: u32, known: Arc<KnownFunction>) {
        if let Some(before) = self.functions.remove(&function) {
            self.values -= before.values();
        }
        let values = known.values();
        if values > VALUES_MAX / 4 {
            // There would be little room for others, and none for more of it.
            return;
        }
        if self.values + values > VALUES_MAX {
            *self = Self::default();
        }
        self.values += values;
        self.functions.insert(function, known);
    }
}

impl KnownFunction {
    /// Whether something is not known of the safepoints that frames name by `offsets`, or of the point at which an `innermost` frame
    /// stands.
    pub fn lacks(&self, offsets: &BTreeSet<u32>, innermost: Option<u32>) -> bool {
        !offsets.iter().all(|offset| {
            let is_innermost = innermost == Some(*offset);
            self.sites.get(offset).is_some_and(|site| {
                self.points.contains_key(&site.layout)
                    && (!is_innermost || self.points.contains_key(&site.innermost))
            })
        })
    }

    /// Finds that out for `function`, which it is about.
    ///
    /// # Errors
    ///
    /// When there is no safepoint at an offset.
    pub fn learn(
        &mut self,
        module: &Module<'_>,
        facts: &Facts,
        function: u32,
        offsets: &BTreeSet<u32>,
        innermost: Option<u32>,
    ) -> Result<()> {
        let is_new = |offset: &u32| !self.sites.contains_key(offset);
        let new: Vec<u32> = offsets.iter().copied().filter(is_new).collect();
        let found = sites(module, function, &new)?;
        self.sites.extend(new.into_iter().zip(found));
        let mut wanted = BTreeSet::new();
        for offset in offsets {
            let site = &self.sites[offset];
            wanted.insert(site.layout);
            wanted.extend((innermost == Some(*offset)).then_some(site.innermost));
        }
        let wanted: Vec<Point> = wanted
            .into_iter()
            .filter(|point| !self.points.contains_key(point))
            .collect();
        let found = layouts(module, facts, function, &wanted)?;
        self.points.extend(wanted.into_iter().zip(found.points));
        self.saved = Some(found.saved);
        Ok(())
    }

    /// Where its values lie in saved frames that staged so many of them.
    pub fn places(&self, staged: Staged) -> Option<Places> {
        let saved = self.saved.as_ref()?;
        Some(Places::new(saved.iter().copied(), staged))
    }

    /// The safepoint that frames name by `offset`.
    pub fn site(&self, offset: u32) -> Option<&Site> {
        self.sites.get(&offset)
    }

    /// What a frame holds that stands at `point`.
    pub fn point(&self, point: Point) -> Option<&PointLayout> {
        self.points.get(&point)
    }

    /// How much it is.
    fn values(&self) -> usize {
        /// What a point or a safepoint weighs besides its values.
        const OTHER: usize = 16;
        let of_point = |layout: &PointLayout| {
            layout.locals.len() + layout.operands.len() + layout.results.len() + OTHER
        };
        let points: usize = self.points.values().map(of_point).sum();
        let saved = self.saved.as_ref().map_or(0, Vec::len);
        points + saved + self.sites.len() * OTHER
    }
}

/// The layouts at the points of requests for clones.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryLayouts(Vec<Vec<PointLayout>>);

impl EntryLayouts {
    /// Of their form as bytes.
    pub const VERSION: u32 = 1;

    /// Finds them.
    ///
    /// # Errors
    ///
    /// [`Error::Image`] when a function has no such point.
    pub fn find(module: &Module<'_>, facts: &Facts, requests: &[CloneRequest]) -> Result<Self> {
        let of_request = |request: &CloneRequest| {
            if request.points.is_empty() {
                return Ok(Vec::new());
            }
            let found = layouts(module, facts, request.function, &request.points);
            let found = found.map_err(|error| Error::Image(error.to_string()))?;
            Ok(found.points)
        };
        requests
            .iter()
            .map(of_request)
            .collect::<Result<_>>()
            .map(Self)
    }

    /// The layout at an entry of a clone, by the numbers that they have in the requests.
    pub fn get(&self, clone: usize, entry: usize) -> Option<&PointLayout> {
        self.0.get(clone)?.get(entry)
    }

    /// The layouts as bytes, for a cache on the same machine: not a stable format.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Nothing in it can fail to be written, and no bytes are read as none.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// The layouts for `requests` from what [`EntryLayouts::to_bytes`] gave; none if they do not fit.
    pub fn from_bytes(requests: &[CloneRequest], bytes: &[u8]) -> Option<Self> {
        let layouts: Self = postcard::from_bytes(bytes).ok()?;
        let counts = layouts.0.iter().map(Vec::len);
        counts
            .eq(requests.iter().map(|request| request.points.len()))
            .then_some(layouts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsnap_instrument::ValueClass;

    /// A call in a loop, with values of several classes below it and in locals.
    const MODULE: &str = r#"(module
        (type $unary (func (param i32) (result f64)))
        (elem declare func $callee)
        (func $callee (type $unary) (loop $l (br_if $l (local.get 0))) (f64.const 1))
        (func $typed (param i32) (result (ref $unary)) (ref.func $callee))
        (func (param $n i64) (param $v v128) (result f64) (local $r funcref) (local $t (ref null $unary))
            (local.set $r (ref.null func))
            (local.set $t (call $typed (i32.const 3)))
            (loop $again
                (drop (call_ref $unary (i32.const 5) (local.get $t)))
                (drop (f64.add (f64.const 2) (call $callee (i32.wrap_i64 (local.get $n)))))
                (drop (v128.any_true (local.get $v)))
                (br_if $again (ref.is_null (local.get $r))))
            (f64.const 3)))"#;

    const FUNCTION: u32 = 2;

    /// Calls `test` with the module, what the rewriter knows of it, and requests for all points of its last function.
    fn with_requests(test: impl FnOnce(&Module<'_>, &Facts, &[CloneRequest])) {
        let wasm = wat::parse_str(MODULE).expect("it is a module");
        let module = Module::parse(&wasm).expect("it is a module");
        let rewritten = wsnap_instrument::rewrite(&module, wsnap_instrument::Options::default());
        let facts = rewritten.expect("it can be rewritten").facts;
        let is_point = |point: &Point| layouts(&module, &facts, FUNCTION, &[*point]).is_ok();
        let calls = (0..wasm.len() as u32).map(Point::Calling).filter(is_point);
        let next = (0..wasm.len() as u32).map(Point::Next).filter(is_point);
        let points: Vec<Point> = calls.chain(next).collect();
        assert!(points.len() > 10, "{points:?}");
        let function = FUNCTION;
        test(&module, &facts, &[CloneRequest { function, points }]);
    }

    #[test]
    fn layouts_come_back_from_bytes_as_they_were() {
        with_requests(|module, facts, requests| {
            let found = EntryLayouts::find(module, facts, requests).expect("they are points");
            let last = requests[0]
                .points
                .iter()
                .rposition(|point| matches!(point, Point::Calling(_)));
            let call = last
                .and_then(|last| found.get(0, last))
                .expect("there is a call");
            assert_eq!(call.operands, [ValueClass::F64]);
            assert_eq!(call.results, [ValueClass::F64]);
            let read = EntryLayouts::from_bytes(requests, &found.to_bytes());
            assert_eq!(read, Some(found));
        });
    }

    #[test]
    fn a_module_that_was_accepted_before_gives_the_same_layouts_and_clones() {
        with_requests(|module, facts, requests| {
            let wasm = wat::parse_str(MODULE).expect("it is a module");
            let accepted = Module::parse_accepted(&wasm).expect("it was accepted");
            let kept = Facts::from_bytes(&accepted, &facts.to_bytes()).expect("they are its facts");
            let found = EntryLayouts::find(module, facts, requests).expect("they are points");
            let again = EntryLayouts::find(&accepted, &kept, requests).expect("they are points");
            assert_eq!(found, again);
            let accepted = Module::parse_accepted(&wasm).expect("it was accepted");
            let clones = |module, facts| {
                let clones = wsnap_instrument::clones(module, facts, requests);
                clones.expect("there are clones").wasm
            };
            assert_eq!(clones(module, facts), clones(&accepted, &kept));
        });
    }

    #[test]
    fn what_is_remembered_is_limited_for_each_function_and_for_all() {
        let known = |values: usize| {
            let layout = PointLayout {
                locals: vec![(0, ValueClass::I32); values],
                operands: Vec::new(),
                results: Vec::new(),
                callee: None,
            };
            Arc::new(KnownFunction {
                points: HashMap::from([(Point::Next(0), layout)]),
                ..KnownFunction::default()
            })
        };
        let mut layouts = Layouts::default();
        let is_known = |layouts: &Layouts, function| !layouts.function(function).points.is_empty();
        layouts.remember(0, known(VALUES_MAX / 2));
        assert!(!is_known(&layouts, 0));
        for function in 0..50 {
            layouts.remember(function, known(VALUES_MAX / 8));
            layouts.remember(function, known(VALUES_MAX / 8));
            assert!(is_known(&layouts, function));
            assert!(layouts.values <= VALUES_MAX);
            assert!(layouts.functions.len() < 8);
        }
        // What has become too much makes room.
        layouts.remember(49, known(VALUES_MAX / 2));
        assert!(!is_known(&layouts, 49));
        let left = layouts.functions.values().map(|known| known.values());
        assert_eq!(left.sum::<usize>(), layouts.values);
    }

    #[test]
    fn bytes_that_are_cut_off_or_of_other_requests_are_no_layouts() {
        with_requests(|module, facts, requests| {
            let found = EntryLayouts::find(module, facts, requests).expect("they are points");
            let bytes = found.to_bytes();
            for len in 0..bytes.len() {
                assert_eq!(
                    EntryLayouts::from_bytes(requests, &bytes[..len]),
                    None,
                    "{len}"
                );
            }
            let mut fewer = requests.to_vec();
            fewer[0].points.pop();
            assert_eq!(EntryLayouts::from_bytes(&fewer, &bytes), None);
            assert_eq!(EntryLayouts::from_bytes(&[], &bytes), None);
        });
    }

    #[test]
    fn a_point_that_does_not_exist_has_no_layout() {
        with_requests(|module, facts, requests| {
            let mut wrong = requests.to_vec();
            wrong[0].points.push(Point::Calling(1));
            let refused = EntryLayouts::find(module, facts, &wrong);
            assert!(matches!(refused, Err(Error::Image(_))), "{refused:?}");
        });
    }
}
