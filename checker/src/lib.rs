//! Verifies that a module that was made suspendable is the original one, and that its frames and clones are right.
//!
//! Written apart from the rewriter, and from another idea: nothing is inserted or looked up here; the original and the
//! rewritten function are executed side by side on symbols (translation validation, Pnueli, Siegel and Singerman 1998).
//! What is shown, for every path through every function:
//!
//! - The same instructions that have an effect are executed in the same order on the same operands; branches, calls,
//!   results and handlers of exceptions are the same.
//! - A frame names the place at which the original stands then, and holds the locals that are live there and the operands,
//!   in their order, without gaps, with its right size.
//! - A clone, entered at any of its points, takes the values out of the frame and goes on from there as the original.
//! - A call of something that may come back unwinding is tested before anything else happens.
//! - No way around a loop, and no cycle of tail calls, is without a safepoint.
//! - What is no code is there and at its index.
//! - What completes frames copies all that was staged; references are saved in the tables of saved ones; what is called through a
//!   bridge is what the original calls, with the same arguments.
//! - What clones import is there.
//!
//! Not shown: what other helper functions do, which is the same for all modules, and that loop-free code does not take too long between
//! safepoints.

mod bridges;
mod clones;
mod code;
mod context;
mod control;
mod effects;
mod error;
mod expect;
mod frames;
mod imports;
mod liveness;
mod module;
mod original;
mod product;
mod push_frame;
mod safepoint;
mod sections;
mod state;
mod unwinding;

pub use error::{Error, Result};

use code::Code;
use context::Context;
use liveness::Liveness;
use module::Module;
use product::Product;
use rayon::prelude::*;

/// A place at which an activation can stand, by an offset in the original module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// The call at this offset is in progress.
    Calling(u32),
    /// The instruction at this offset is executed next.
    Next(u32),
}

impl Point {
    fn offset(self) -> u32 {
        match self {
            Self::Calling(offset) | Self::Next(offset) => offset,
        }
    }
}

/// A function of which there is a clone, and the points at which that can be entered.
#[derive(Clone, Debug)]
pub struct ClonedFunction {
    /// The function's index in the original module.
    pub function: u32,
    /// The points, by their number in a frame; none for an imported function.
    pub points: Vec<Point>,
}

/// A rewritten module and its original.
pub struct Checker<'a> {
    original: Module<'a>,
    main: Module<'a>,
    context: Context,
}

impl<'a> Checker<'a> {
    /// Reads both modules, and compares all that is no code.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if one of them is not valid, [`Error::Section`] if they differ.
    pub fn new(original: &'a [u8], rewritten: &'a [u8]) -> Result<Self> {
        let original = Module::parse(original)?;
        let main = Module::parse(rewritten)?;
        let mut context = Context::of_main(&original, &main)?;
        sections::compare(&context, &original, &main)?;
        let functions = unwinding::find(&context, &original, &main)?;
        context.unwinding = functions.unwinding;
        context.called_by_clones = functions.called_by_clones;
        context.copied = push_frame::verify(&context, &main)?;
        context.bridges = bridges::read(&context, &original, &main)?;
        Ok(Self {
            original,
            main,
            context,
        })
    }

    /// Verifies all functions of the rewritten module. Returns how many there are.
    ///
    /// # Errors
    ///
    /// [`Error::Code`] says where a function differs from the original, [`Error::Invalid`] that one is not valid.
    pub fn check(&self) -> Result<usize> {
        let imported = self.original.imported_functions;
        for import in 0..imported {
            imports::verify_wrapper(&self.context, &self.original, &self.main, import)?;
        }
        (imported..self.original.function_count())
            .into_par_iter()
            .try_for_each(|function| self.check_function(function))?;
        Ok((self.original.function_count() - imported) as usize)
    }

    fn check_function(&self, function: u32) -> Result<()> {
        let original = Code::new(&self.original, function, &[])?;
        let rewritten = Code::new(&self.main, function, &[])?;
        let (Some(original), Some(rewritten)) = (original, rewritten) else {
            return error::section("code", format!("function {function} has no body"));
        };
        let (params, there) = (&original.locals[..original.params], rewritten.params);
        if rewritten.locals[..there] != *params {
            return error::section("code", format!("function {function} has other parameters"));
        }
        let liveness = Liveness::new(&original);
        let mut product = Product::new(&self.context, function, &original, &rewritten, &liveness);
        product.saved = product.find_saved()?;
        let entry = product.at_entry();
        product.verify(Some(entry))
    }

    /// Verifies a module of clones of the functions in `list`, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// As for [`Checker::check`].
    pub fn check_clones(&self, clones: &[u8], list: &[ClonedFunction]) -> Result<()> {
        let clones = Module::parse(clones)?;
        let mut context = self
            .context
            .of_clones(&self.original, &self.main, &clones)?;
        let behind = clones.imported_functions + list.len() as u32;
        for function in behind..clones.function_count() {
            let called = bridges::called_across(&context, &self.original, &clones, function)?;
            context
                .roles
                .insert(function, context::Role::Original(called));
        }
        (0u32..)
            .zip(list)
            .collect::<Vec<_>>()
            .into_par_iter()
            .try_for_each(|(number, clone)| {
                let index = clones.imported_functions + number;
                if clone.function < self.original.imported_functions {
                    return imports::verify_call_again(
                        &context,
                        &self.original,
                        &clones,
                        clone.function,
                        index,
                    );
                }
                let mut wanted: Vec<u32> =
                    clone.points.iter().map(|point| point.offset()).collect();
                wanted.sort_unstable();
                let original = Code::new(&self.original, clone.function, &wanted)?;
                let rewritten = Code::new(&clones, index, &[])?;
                let main = Code::new(&self.main, clone.function, &[])?;
                let (Some(original), Some(rewritten), Some(main)) = (original, rewritten, main)
                else {
                    return error::section("clones", format!("there is no clone {number}"));
                };
                let liveness = Liveness::new(&original);
                let (function, context_of_main) = (clone.function, &self.context);
                let saved = Product::new(context_of_main, function, &original, &main, &liveness)
                    .find_saved()?;
                let mut product =
                    Product::new(&context, function, &original, &rewritten, &liveness);
                product.saved = saved;
                clones::verify(product, &clone.points)
            })
    }
}
