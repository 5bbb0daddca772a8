//! Slots that independent processes on one machine share by urgency, through a directory and without a daemon.
//!
//! ```text
//! count            how many slots there are, as text
//! waiting/<id>     a process that waits for a slot
//! running/<id>     a process that has one
//! asked/<id>       a process that has one is asked to give it back
//! lock             locked by whoever takes a slot, or asks for one
//! ```
//!
//! Each process has one file, its *ticket*, which it keeps locked (`flock`) as long as it lives: a ticket that somebody
//! else can lock is that of a dead process, and worth nothing. A ticket is moved between `waiting` and `running` by its own
//! process only, by a rename. Its name says how urgent it is ([`TicketId`]): names in order are tickets in order, the most
//! urgent first, and of equally urgent ones the oldest first.
//!
//! Who waits looks whenever something changes. If there is a free slot for each ticket before its own and one more, it
//! takes one. Otherwise, if enough of the running programs are less urgent, it asks one to make room: the most
//! urgent of those who wait asks the least urgent of those who run, the second the second, and so on. Whoever is asked
//! moves its ticket back to `waiting`, when it is ready to.
//!
//! A process can be killed between any two of these steps. What it leaves is a ticket that is not locked, or a
//! question nobody needs: the one is removed by whoever finds it, the other is answered by a program that then takes the next
//! slot again.

mod error;
mod files;
mod id;
mod slots;
mod ticket;
mod watch;

pub use error::SlotsError;
pub use id::TicketId;
pub use slots::{Entry, SLOTS_MAX, Slots, State};
pub use ticket::{Ticket, Waited, Watcher};
