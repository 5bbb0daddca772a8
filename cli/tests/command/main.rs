//! The `wsnap` binary, from outside.

mod ends;
mod help;
mod running;
mod sandbox;
