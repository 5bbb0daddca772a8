//! `--slots`: the program's place among those that share slots.

use std::os::fd::AsFd;
use std::path::Path;

use wsnap_slots::{Slots, SlotsError, Ticket, Waited, Watcher};

use super::requests::{Request, Requests, StopCause};
use crate::failure::Failure;

/// A place in line, or a slot.
pub(crate) struct Slot {
    ticket: Ticket,
    /// While the program has a slot.
    watcher: Option<Watcher>,
}

impl Slot {
    /// Gets in line for a slot of `directory`.
    pub fn enter(directory: &Path, priority: i32) -> Result<Self, Failure> {
        let ticket = Slots::open(directory)?.enter(priority)?;
        Ok(Self {
            ticket,
            watcher: None,
        })
    }

    /// Waits for a slot; false if somebody wants the program to stop. Once the program has one, it is suspended when somebody
    /// more urgent needs it.
    pub fn wait(&mut self, requests: &Requests) -> Result<bool, Failure> {
        while self.ticket.wait(requests.as_fd())? == Waited::Woken {
            if requests.is_stop_wanted() {
                return Ok(false);
            }
            // It has no slot that anybody could want any more.
            requests.take();
        }
        if self.watcher.is_none() {
            let requests = requests.clone();
            let asked = move || requests.push(Request::stop(StopCause::Preempted));
            self.watcher = Some(self.ticket.watch(asked)?);
        }
        Ok(true)
    }

    /// Whether the program has a slot.
    pub fn is_held(&self) -> bool {
        self.ticket.is_running()
    }

    /// Lets somebody else have the slot.
    pub fn give_back(&mut self) -> Result<(), SlotsError> {
        self.watcher = None;
        self.ticket.give_back()
    }
}
