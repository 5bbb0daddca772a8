//! One attempt of a program: running it, and what is done whenever it stands still.

use std::time::Instant;

use wsnap::{Instance, Outcome, StopReason};
use wsnap_supervision::{Job, Origin};

use super::control::{Answer, SNAP_TRIGGER};
use super::ended::Ended;
use super::keeper::Taken;
use super::requests::{Request, StopCause};
use super::{Session, autosave, cannot_start, own};
use crate::arguments::Trigger;
use crate::failure::{self, Failure};
use crate::limits::OnTimeout;
use crate::output;

impl Session<'_> {
    /// Runs the program, which came from `origin`, once. `job` is told while the program waits for its turn.
    pub fn attempt(
        &mut self,
        mut instance: Instance,
        origin: Origin,
        job: Option<&mut Job>,
    ) -> Result<Ended, Failure> {
        self.keeper
            .kept()
            .begin(origin)
            .map_err(|error| cannot_start(&error))?;
        own::keep(
            &mut instance,
            self.places,
            self.store.clone(),
            self.keeper.clone(),
        );
        match self.options.stop_at {
            Some(Trigger::Safepoint(number)) => instance.stop_at_safepoint(number)?,
            Some(Trigger::Stdin) => instance.wasi().set_stdin_probe(true),
            Some(Trigger::After(_)) | None => (),
        }
        instance.set_limits(self.options.limits.limits())?;
        self.grace.begin();
        self.requests.aim(Some(instance.handle()));
        let autosave = match self.options.saving.pace() {
            Some(pace) => {
                let (store, kept) = (self.store()?.clone(), self.options.saving.keep_saved);
                let keeper = self.keeper.clone();
                let started = autosave::start(pace, kept, instance.handle(), keeper, store);
                Some(started.map_err(|error| cannot_start(&error))?)
            }
            None => None,
        };
        let ended = self.run_to_end(&mut instance, job);
        self.keeper.kept().pause();
        self.requests.aim(None);
        self.is_over = ended.as_ref().is_ok_and(Ended::is_own_end);
        if self.is_over {
            self.grace.end();
        }
        drop(instance);
        if let Some(autosave) = autosave {
            autosave.finish();
        }
        // What follows from the end must see all snapshots of this attempt.
        self.keeper.settle();
        let ended = ended?;
        if ended.is_own_end() {
            // Whoever reads that it has finished finds all that it printed.
            self.keeper.kept().sync_output()?;
        }
        Ok(ended)
    }

    fn run_to_end(
        &mut self,
        instance: &mut Instance,
        mut job: Option<&mut Job>,
    ) -> Result<Ended, Failure> {
        loop {
            let reason = match instance.run() {
                Ok(Outcome::Suspended(reason)) => reason,
                end => return Ended::of(end),
            };
            let requests = self.requests.take();
            if let Some(ended) = self.killed(&requests) {
                return Ok(ended);
            }
            let next = self.suspended(instance, &reason, requests);
            match next {
                Next::GoOn => (),
                Next::End(ended) => return Ok(ended),
                Next::WaitForTurn(taken) => {
                    // Until it goes on its image is what there is.
                    self.requests.set_waiting(taken.is_some());
                    if let Some(ended) = self.wait_for_turn(taken.as_ref(), job.as_deref_mut())? {
                        return Ok(ended);
                    }
                    self.requests.aim(Some(instance.handle()));
                }
            }
        }
    }

    /// Somebody else has the program's slot, and its image is stored, if it could be. Returns once the program may go on, or how
    /// it ended.
    fn wait_for_turn(
        &mut self,
        taken: Option<&Taken>,
        job: Option<&mut Job>,
    ) -> Result<Option<Ended>, Failure> {
        self.keeper.kept().pause();
        let Some(taken) = taken else {
            // Whoever wants it to stop now wants an image, which is tried again as soon as it runs.
            self.await_slot_again()?;
            self.keeper.kept().go();
            return Ok(None);
        };
        let mut job = job;
        if let Some(job) = &mut job {
            job.stopped()?;
        }
        if !self.await_slot_again()? {
            // Its state is what it was.
            let requests = self.requests.take();
            let cause = requests.first().map(Request::stop_cause);
            for request in requests {
                request.answer(Answer::image(taken));
            }
            self.report(taken, cause.unwrap_or(StopCause::Preempted));
            let code = self.options.suspended_exit_code;
            return Ok(Some(Ended::suspended(code)));
        }
        if let Some(job) = job {
            job.goes_on()?;
        }
        self.keeper.kept().go();
        Ok(None)
    }

    /// Whether the program's time is up, and it is to end for it: then how.
    fn killed(&self, requests: &[Request]) -> Option<Ended> {
        // Whoever else asked for a stop meanwhile wants an image.
        let is_deadline = |request: &Request| request.stop_cause().deadline().is_some();
        let all = requests.iter().all(is_deadline);
        all.then(|| self.end_of_time(deadline(requests))).flatten()
    }

    /// Ends the program, unless its time is not up, or it is to be suspended then.
    fn end_of_time(&self, deadline: Option<(&str, &str)>) -> Option<Ended> {
        if self.options.limits.on_timeout == OnTimeout::Suspend {
            return None;
        }
        let (what, flag) = deadline?;
        let reason = format!("the program's {what} is up ({flag})");
        Failure::new(reason.clone())
            .hint("--on-timeout suspend stores it instead, so that it can go on later")
            .print();
        Some(Ended::out_of_time(reason))
    }

    /// Does what was asked for.
    fn suspended(
        &mut self,
        instance: &mut Instance,
        reason: &StopReason,
        requests: Vec<Request>,
    ) -> Next {
        let cause = stop_cause(reason, &requests);
        // Somebody asked, and what they asked for was part of the snapshot before.
        if cause.is_none() && requests.is_empty() {
            return Next::GoOn;
        }
        let since = requests.iter().map(Request::since).min();
        let mut captured = false;
        let taken = self.snapshot(
            instance,
            since.unwrap_or_else(Instant::now),
            cause,
            &requests,
            &mut captured,
        );
        if taken.is_ok() && cause.is_some_and(|cause| cause != StopCause::Preempted) {
            self.grace.cancel();
        }
        let deadline = deadline(&requests);
        let mut causes = requests.iter().map(Request::stop_cause);
        let is_slot_wanted = causes.any(|cause| cause == StopCause::Preempted);
        for request in requests {
            request.answer(match &taken {
                Ok(taken) => Answer::image(taken),
                Err(failure) => Answer::refusal(failure),
            });
        }
        let Some(cause) = cause else {
            return Next::GoOn;
        };
        match taken {
            Ok(taken) if cause == StopCause::Preempted => Next::WaitForTurn(Some(taken)),
            Ok(taken) => {
                self.report(&taken, cause);
                Next::End(Ended::suspended(self.options.suspended_exit_code))
            }
            Err(failure) => {
                failure.print();
                self.grace.cancel();
                if captured && cause.is_flag() {
                    return Next::End(Ended::suspended(failure::OTHER));
                }
                if let Some(ended) = self.end_of_time(deadline) {
                    return Next::End(ended);
                }
                // Nothing will be another way when it waits for its input the next time.
                instance.wasi().set_stdin_probe(false);
                if self.makes_room(is_slot_wanted) {
                    output::message("the program waits for its turn without an image");
                    return Next::WaitForTurn(None);
                }
                output::message("the program goes on, so that nothing is lost");
                Next::GoOn
            }
        }
    }

    /// Whether the program has no slot any more, because somebody more urgent wants it, or for a stop before.
    fn makes_room(&mut self, is_slot_wanted: bool) -> bool {
        let Some(slot) = &mut self.slot else {
            return false;
        };
        if is_slot_wanted && let Err(error) = slot.give_back() {
            Failure::from(error).print();
        }
        !slot.is_held()
    }

    /// Takes a snapshot and stores it; `captured` tells whether what fails is the storing.
    fn snapshot(
        &mut self,
        instance: &mut Instance,
        since: Instant,
        cause: Option<StopCause>,
        requests: &[Request],
        captured: &mut bool,
    ) -> Result<Taken, Failure> {
        let keeper = self.keeper.clone();
        let store = self.store()?.clone();
        let snapshot = instance.snapshot()?;
        *captured = true;
        if let (Some(StopCause::Preempted), Some(slot)) = (cause, &mut self.slot) {
            // The program stands still. Whoever is more urgent need not wait until it is written down: killed until then, it
            // goes on from its image before, as it would if it ran.
            slot.give_back()?;
        }
        // The terminal of a program that goes on is its own.
        let _progress = cause.map(|_| output::progress("writing the image …".to_owned()));
        let trigger = cause.map_or(SNAP_TRIGGER, StopCause::as_str);
        let labels = requests.iter().flat_map(Request::labels);
        let labels = labels.map(|(key, value)| (key.clone(), value.clone()));
        keeper.keep(&store, &snapshot, since, trigger, &labels.collect())
    }
}

/// What becomes of a program that has been suspended.
enum Next {
    GoOn,
    End(Ended),
    /// It goes on when there is a slot for it, and has been stored, unless that failed.
    WaitForTurn(Option<Taken>),
}

/// Why the program is not to go on, if it isn't.
fn stop_cause(reason: &StopReason, requests: &[Request]) -> Option<StopCause> {
    match reason {
        StopReason::Safepoint => Some(StopCause::Safepoint),
        StopReason::Stdin => Some(StopCause::Stdin),
        _ => {
            // Whoever wants it to stop for good goes before those who want its slot.
            let mut causes = requests.iter().map(Request::stop_cause);
            let for_good = causes.clone().find(|cause| *cause != StopCause::Preempted);
            for_good.or_else(|| causes.next())
        }
    }
}

/// The limit of time that one of the requests says is reached, and its flag.
fn deadline(requests: &[Request]) -> Option<(&'static str, &'static str)> {
    let mut causes = requests.iter().map(Request::stop_cause);
    causes.find_map(StopCause::deadline)
}
