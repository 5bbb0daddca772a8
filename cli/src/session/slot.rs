//! `--slots`: the program's place among those that share slots.

use std::os::fd::AsFd;
use std::path::Path;

use wsnap_slots::{Slots, SlotsError, Ticket, Waited, Watcher};

use super::requests::{Request, Requests, StopCause};
use crate::failure::Failure;

/// A place in line, or a slot.
pub(crate) struct Slot {
    ticket: Ticket,
    _watcher: Watcher,
}

impl Slot {
    /// Gets in line for a slot of `directory`. Once the program has one, it is suspended when somebody more urgent needs it.
    pub fn enter(directory: &Path, priority: i32, requests: &Requests) -> Result<Self, Failure> {
        let ticket = Slots::open(directory)?.enter(priority)?;
        let requests = requests.clone();
        let watcher = ticket.watch(move || requests.push(Request::stop(StopCause::Preempted)))?;
        Ok(Self {
            ticket,
            _watcher: watcher,
        })
    }

    /// Waits for a slot; false if somebody wants the program to stop.
    pub fn wait(&mut self, requests: &Requests) -> Result<bool, Failure> {
        loop {
            if self.ticket.wait(requests.as_fd())? == Waited::Running {
                return Ok(true);
            }
            if requests.is_stop_wanted() {
                return Ok(false);
            }
            // It has no slot that anybody could want any more.
            requests.take();
        }
    }

    /// Lets somebody else have the slot.
    pub fn give_back(&mut self) -> Result<(), SlotsError> {
        self.ticket.give_back()
    }
}
