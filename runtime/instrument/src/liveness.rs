//! Live locals by backward data flow over basic blocks (Aho, Lam, Sethi, Ullman, section 9.2.5).

use crate::points::Point;

/// What an instruction means for liveness, in program order within a block.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Access {
    /// A local is read.
    Use(u32),
    /// A local is written.
    Define(u32),
    /// The live locals are wanted here.
    Point(Point),
}

/// Basic blocks with what happens in them and where they go on.
pub(crate) struct Flow {
    accesses: Vec<Access>,
    /// Index of the first access of each block.
    starts: Vec<u32>,
    edges: Vec<(u32, u32)>,
}

/// The live locals at the points asked for.
pub(crate) struct Live {
    /// Ascending.
    points: Vec<Point>,
    locals: Vec<Vec<u32>>,
}

/// As many locals as are looked at together.
type Set = u128;

impl Flow {
    /// No blocks yet.
    pub fn new() -> Self {
        Self {
            accesses: Vec::new(),
            starts: Vec::new(),
            edges: Vec::new(),
        }
    }

    /// Begins a new block, which the next accesses belong to.
    pub fn begin_block(&mut self) -> u32 {
        self.starts.push(self.accesses.len() as u32);
        self.starts.len() as u32 - 1
    }

    /// Adds an access to the block begun last.
    pub fn note(&mut self, access: Access) {
        self.accesses.push(access);
    }

    /// Control can go from the end of block `from` to the start of block `to`.
    pub fn edge(&mut self, from: u32, to: u32) {
        self.edges.push((from, to));
    }

    fn accesses_of(&self, block: usize) -> &[Access] {
        let end = self
            .starts
            .get(block + 1)
            .map_or(self.accesses.len(), |start| *start as usize);
        &self.accesses[self.starts[block] as usize..end]
    }

    /// Finds the live locals of all points.
    pub fn solve(mut self) -> Live {
        self.edges.sort_unstable();
        self.edges.dedup();
        let mut successors = vec![0u32; self.starts.len() + 1];
        for &(from, _) in &self.edges {
            successors[from as usize + 1] += 1;
        }
        for block in 1..successors.len() {
            successors[block] += successors[block - 1];
        }
        let mut points: Vec<Point> = self
            .accesses
            .iter()
            .filter_map(|access| access.point())
            .collect();
        points.sort_unstable();
        points.dedup();
        let locals = vec![Vec::new(); points.len()];
        let mut live = Live { points, locals };
        if live.points.is_empty() {
            return live;
        }
        let highest = self
            .accesses
            .iter()
            .filter_map(|access| access.used())
            .max();
        for first in (0..=highest.unwrap_or(0)).step_by(Set::BITS as usize) {
            self.solve_column(first, &successors, &mut live);
        }
        live
    }

    /// Finds which of the locals from `first` on, as many as fit in a set, are live where.
    fn solve_column(&self, first: u32, successors: &[u32], live: &mut Live) {
        let count = self.starts.len();
        let (mut used, mut defined) = (vec![Set::default(); count], vec![Set::default(); count]);
        for block in 0..count {
            for access in self.accesses_of(block).iter().rev() {
                access.apply(first, &mut used[block], Some(&mut defined[block]));
            }
        }
        let at_end = |entry: &[Set], block: usize| {
            let range = successors[block] as usize..successors[block + 1] as usize;
            self.edges[range]
                .iter()
                .fold(0, |set, &(_, to)| set | entry[to as usize])
        };
        // Blocks are numbered in program order, so a sweep from the last to the first settles all but loops, and
        // every further sweep at least one more level of loops.
        let mut entry = used.clone();
        let mut changed = true;
        while changed {
            changed = false;
            for block in (0..count).rev() {
                let set = used[block] | (at_end(&entry, block) & !defined[block]);
                changed |= set != entry[block];
                entry[block] = set;
            }
        }
        for block in 0..count {
            let mut set = at_end(&entry, block);
            for access in self.accesses_of(block).iter().rev() {
                if let Some(point) = access.point() {
                    live.extend(point, first, set);
                }
                access.apply(first, &mut set, None);
            }
        }
    }
}

impl Access {
    fn point(&self) -> Option<Point> {
        match self {
            Self::Point(point) => Some(*point),
            _ => None,
        }
    }

    fn used(&self) -> Option<u32> {
        match self {
            Self::Use(local) => Some(*local),
            _ => None,
        }
    }

    /// Steps backward over the access: `set` is what is live after it and becomes what is live before it.
    fn apply(&self, first: u32, set: &mut Set, defined: Option<&mut Set>) {
        let bit = |local: u32| {
            local
                .checked_sub(first)
                .filter(|bit| *bit < Set::BITS)
                .map_or(0, |bit| 1 << bit)
        };
        match *self {
            Self::Use(local) => *set |= bit(local),
            Self::Define(local) => {
                let bit: Set = bit(local);
                *set &= !bit;
                if let Some(defined) = defined {
                    *defined |= bit;
                }
            }
            Self::Point(_) => {}
        }
    }
}

impl Live {
    fn extend(&mut self, point: Point, first: u32, mut set: Set) {
        let Ok(index) = self.points.binary_search(&point) else {
            return;
        };
        // A point may have been noted twice in a row, which gives the same set twice.
        if self.locals[index].last().is_some_and(|last| *last >= first) {
            return;
        }
        while set != 0 {
            self.locals[index].push(first + set.trailing_zeros());
            set &= set - 1;
        }
    }

    /// The locals live at one or more of `points`, ascending.
    pub fn at_any(&self, points: &[Point]) -> Vec<u32> {
        let mut found = Vec::new();
        for local in points.iter().filter_map(|point| self.at(*point)).flatten() {
            let local = *local as usize;
            if found.len() <= local {
                found.resize(local + 1, false);
            }
            found[local] = true;
        }
        (0..)
            .zip(found)
            .filter_map(|(local, found)| found.then_some(local))
            .collect()
    }

    /// The locals live at `point`, ascending.
    pub fn at(&self, point: Point) -> Option<&[u32]> {
        let index = self.points.binary_search(&point).ok()?;
        Some(&self.locals[index])
    }
}
