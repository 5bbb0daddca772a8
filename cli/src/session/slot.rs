//! `--slots`: the program's place among those that share slots.

use std::os::fd::AsFd;
use std::path::Path;

use wsnap_slots::{Slots, SlotsError, Ticket, Waited, Watcher};

use super::requests::{Request, Requests, StopCause};
use crate::failure::Failure;

/// A place in line, or a slot, as long as the program could use one: not while it is compiled, or waits after a crash, for
/// whoever stands in line keeps the less urgent from slots that are free.
pub(crate) struct Slot {
    slots: Slots,
    priority: i32,
    ticket: Option<Ticket>,
    /// While the program has a slot.
    watcher: Option<Watcher>,
}

impl Slot {
    /// One of those of `directory`, but not yet.
    pub fn open(directory: &Path, priority: i32) -> Result<Self, Failure> {
        Ok(Self {
            slots: Slots::open(directory)?,
            priority,
            ticket: None,
            watcher: None,
        })
    }

    /// Waits for a slot; false if somebody wants the program to stop. Once the program has one, it is suspended when somebody
    /// more urgent needs it.
    pub fn wait(&mut self, requests: &Requests) -> Result<bool, Failure> {
        let ticket = match &mut self.ticket {
            Some(ticket) => ticket,
            none => none.insert(self.slots.enter(self.priority)?),
        };
        while ticket.wait(requests.as_fd())? == Waited::Woken {
            if requests.is_stop_wanted() {
                return Ok(false);
            }
        }
        if self.watcher.is_none() {
            let requests = requests.clone();
            let asked = move || requests.push(Request::stop(StopCause::Preempted));
            self.watcher = Some(ticket.watch(asked)?);
        }
        Ok(true)
    }

    /// Whether the program has a slot.
    pub fn is_held(&self) -> bool {
        self.ticket.as_ref().is_some_and(Ticket::is_running)
    }

    /// Lets somebody else have the slot, and waits in line for another one.
    pub fn give_back(&mut self) -> Result<(), SlotsError> {
        self.watcher = None;
        match &mut self.ticket {
            Some(ticket) => ticket.give_back(),
            None => Ok(()),
        }
    }

    /// Does without a slot for now.
    pub fn leave(&mut self) {
        self.watcher = None;
        self.ticket = None;
    }
}
