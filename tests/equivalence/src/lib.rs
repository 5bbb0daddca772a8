//! Proof that stopping changes nothing: modules run bare and with stops, and what can be seen of them compared.
//!
//! - [`driver`]: a function that is added to a module, calls its others, and logs what can be seen of them
//! - [`driven`]: running such modules, bare or with stops
//! - [`compare`]: one program, bare and in all manners of stopping; what tests, fuzzer and long run share
//! - [`programs`]: programs from a seed or from a fuzzer's bytes; [`library`]: functions that these may call
//! - [`uses`]: what a program does when it runs, counted
//! - [`validity`]: a module and clones for all its points are valid; [`points`]: which points there are
//! - [`reduce`]: a small program in place of a large one that shows the same
//! - [`campaign`]: very many programs on all cores
//! - [`imports`]: definitions in the place of imports; [`random`]: numbers from a seed
//!
//! The command `equivalence` is a campaign from the command line.

pub mod campaign;
pub mod compare;
pub mod driven;
pub mod driver;
pub mod imports;
pub mod library;
pub mod points;
pub mod programs;
pub mod random;
pub mod reduce;
pub mod uses;
pub mod validity;
