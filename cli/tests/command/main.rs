//! The `wsnap` binary, from outside.

mod diff;
mod ends;
mod guest_api;
mod help;
mod history;
mod housekeeping;
mod limits;
mod rollout;
mod running;
mod sandbox;
mod slurm;
mod sockets;
mod stored;
mod transfer;
mod verify;
mod volumes;
