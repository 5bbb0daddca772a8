//! Many processes share slots while they are killed at random.
//!
//! The test executable is run again as each of these processes, by its hidden test `worker`. A worker writes a line into a
//! file of its own when it gets a slot and when it gives it back, while it holds a lock that stands for the work.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::event::{EventfdFlags, eventfd};
use rustix::thread::gettid;
use std::os::fd::AsFd;
use wsnap_slots::{Slots, State, TicketId, Waited};

const SLOTS: u32 = 3;
const WORKERS: usize = 40;
/// A worker's turns with a slot.
const TURNS: usize = 4;
const KILLS: usize = 60;

/// Holds a file for as long as it has a slot: more than there are slots cannot hold one at a time.
struct Seat(PathBuf);

impl Seat {
    fn take(folder: &Path) -> Self {
        let path = folder.join(std::process::id().to_string());
        fs::write(&path, "").expect("a seat");
        Self(path)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        fs::remove_file(&self.0).expect("the seat is there");
    }
}

#[test]
#[ignore = "run by the other test, as a process of its own"]
fn worker() {
    let Some(directory) = env::var_os("SLOTS_DIRECTORY") else {
        return;
    };
    let priority = env::var("SLOTS_PRIORITY")
        .expect("given")
        .parse()
        .expect("a number");
    let seats = PathBuf::from(env::var_os("SLOTS_SEATS").expect("given"));
    let slots = Slots::open(directory).expect("slots");
    let mut ticket = slots.enter(priority).expect("a ticket");
    let is_asked = Arc::new(AtomicBool::new(false));
    let asked = is_asked.clone();
    let _watcher = ticket
        .watch(move || asked.store(true, Ordering::SeqCst))
        .expect("a watcher");
    let never = eventfd(0, EventfdFlags::empty()).expect("an eventfd");
    for _ in 0..TURNS {
        assert_eq!(ticket.wait(never.as_fd()).expect("a slot"), Waited::Running);
        let seat = Seat::take(&seats);
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(30) && !is_asked.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        drop(seat);
        is_asked.store(false, Ordering::SeqCst);
        ticket.give_back().expect("given back");
    }
}

fn start(slots: &Path, seats: &Path, priority: i32) -> Child {
    Command::new(env::current_exe().expect("this test"))
        .args(["--exact", "worker", "--ignored", "--quiet"])
        .env("SLOTS_DIRECTORY", slots)
        .env("SLOTS_SEATS", seats)
        .env("SLOTS_PRIORITY", priority.to_string())
        .stdout(Stdio::null())
        .spawn()
        .expect("a worker starts")
}

/// How many living processes have a seat.
fn seated(seats: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(seats).expect("seats") {
        let name = entry.expect("an entry").file_name();
        let pid = name.to_str().expect("a number").to_owned();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
        // A zombie has been killed and holds nothing. The seat must be there still: it may have been given up meanwhile.
        let lives = !state.is_empty() && !state.starts_with(['Z', 'X']);
        count += usize::from(lives && seats.join(&pid).exists());
    }
    count
}

#[test]
fn no_more_run_than_there_are_slots_and_all_come_to_their_turns_whoever_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (slots, seats) = (folder.path().join("slots"), folder.path().join("seats"));
    fs::create_dir(&seats).expect("a folder");
    let directory = Slots::create(&slots, SLOTS).expect("slots");
    let mut rng = Rng::new();
    let mut workers: Vec<(i32, Child)> = (0..WORKERS)
        .map(|_| {
            let priority = rng.i32(-2..3);
            (priority, start(&slots, &seats, priority))
        })
        .collect();
    let (mut kills, mut done) = (0, 0);
    let start_time = Instant::now();
    while done < WORKERS {
        assert!(
            start_time.elapsed() < Duration::from_secs(240),
            "somebody waits for ever"
        );
        assert!(
            seated(&seats) <= SLOTS as usize,
            "more run than there are slots"
        );
        if kills < KILLS && rng.u32(0..40) == 0 {
            let victim = rng.usize(0..workers.len());
            let (priority, child) = &mut workers[victim];
            if child.try_wait().expect("a child").is_none() {
                child.kill().expect("killed");
                child.wait().expect("it has ended");
                *child = start(&slots, &seats, *priority);
                kills += 1;
            }
        }
        done = 0;
        for (_, child) in &mut workers {
            match child.try_wait().expect("a child") {
                Some(status) => {
                    assert!(status.success(), "{status}");
                    done += 1;
                }
                None => break,
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert!(kills > 0);
    assert_eq!(directory.entries().expect("entries"), []);
    let left: Vec<_> = ["waiting", "running", "asked"]
        .iter()
        .flat_map(|name| fs::read_dir(slots.join(name)).expect("a folder"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_more_urgent_one_gets_the_slot_of_the_least_urgent_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let slots = Slots::create(folder.path().join("slots"), 2).expect("slots");
    let never = eventfd(0, EventfdFlags::empty()).expect("an eventfd");
    let wake = eventfd(1, EventfdFlags::empty()).expect("an eventfd");
    let mut low = slots.enter(0).expect("a ticket");
    let mut middle = slots.enter(5).expect("a ticket");
    assert_eq!(low.wait(never.as_fd()).expect("a slot"), Waited::Running);
    assert_eq!(middle.wait(never.as_fd()).expect("a slot"), Waited::Running);
    // As urgent as the least urgent one: it waits for its turn.
    let mut equal = slots.enter(0).expect("a ticket");
    assert_eq!(equal.wait(wake.as_fd()).expect("woken"), Waited::Woken);
    let states = |slots: &Slots| -> Vec<(i32, State)> {
        let entries = slots.entries().expect("entries").into_iter();
        entries
            .map(|entry| (entry.id.priority(), entry.state))
            .collect()
    };
    let (running, waiting) = (State::Running, State::Waiting);
    assert_eq!(states(&slots), [(5, running), (0, running), (0, waiting)]);
    let mut urgent = slots.enter(9).expect("a ticket");
    assert_eq!(urgent.wait(wake.as_fd()).expect("woken"), Waited::Woken);
    assert_eq!(
        states(&slots),
        [(5, running), (0, State::Asked), (9, waiting), (0, waiting)]
    );
    low.give_back().expect("given back");
    assert_eq!(equal.wait(wake.as_fd()).expect("woken"), Waited::Woken);
    assert_eq!(urgent.wait(never.as_fd()).expect("a slot"), Waited::Running);
    drop(middle);
    // The one that had to make room keeps its place before those that came later.
    assert_eq!(equal.wait(wake.as_fd()).expect("woken"), Waited::Woken);
    assert_eq!(low.wait(never.as_fd()).expect("a slot"), Waited::Running);
    drop(urgent);
    assert_eq!(equal.wait(never.as_fd()).expect("a slot"), Waited::Running);
}

#[test]
fn fewer_slots_keep_everybody_running_and_more_let_the_next_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("slots");
    let slots = Slots::create(&path, 2).expect("slots");
    let wake = eventfd(1, EventfdFlags::empty()).expect("an eventfd");
    let never = eventfd(0, EventfdFlags::empty()).expect("an eventfd");
    let mut tickets: Vec<_> = (0..3).map(|_| slots.enter(0).expect("a ticket")).collect();
    for ticket in &mut tickets[..2] {
        assert_eq!(ticket.wait(never.as_fd()).expect("a slot"), Waited::Running);
    }
    Slots::create(&path, 1).expect("fewer");
    drop(tickets.remove(0));
    assert_eq!(tickets[1].wait(wake.as_fd()).expect("woken"), Waited::Woken);
    let mut third = tickets.remove(1);
    let waits = thread::spawn(move || {
        let never = eventfd(0, EventfdFlags::empty()).expect("an eventfd");
        third.wait(never.as_fd()).expect("a slot")
    });
    Slots::create(&path, 2).expect("more");
    assert_eq!(waits.join().expect("no panic"), Waited::Running);
}

#[test]
fn who_waits_for_a_slot_sleeps() {
    let folder = tempfile::tempdir().expect("a folder");
    let slots = Slots::create(folder.path().join("slots"), 1).expect("slots");
    let never = eventfd(0, EventfdFlags::empty()).expect("an eventfd");
    let mut first = slots.enter(0).expect("a ticket");
    assert_eq!(first.wait(never.as_fd()).expect("a slot"), Waited::Running);
    let over = Arc::new(eventfd(0, EventfdFlags::empty()).expect("an eventfd"));
    let (send, receive) = mpsc::channel();
    let waits: Vec<_> = (0..3)
        .map(|priority| {
            let (mut ticket, over, send) = (
                slots.enter(priority).expect("a ticket"),
                over.clone(),
                send.clone(),
            );
            thread::spawn(move || {
                send.send(gettid().as_raw_nonzero()).expect("sent");
                ticket.wait(over.as_fd()).expect("no error")
            })
        })
        .collect();
    let threads: Vec<_> = receive.iter().take(waits.len()).collect();
    // They come to rest after they have seen each other come.
    thread::sleep(Duration::from_millis(200));
    let sleeps = || {
        threads
            .iter()
            .map(|thread| sleeps_of(thread.get()))
            .sum::<u64>()
    };
    let before = sleeps();
    thread::sleep(Duration::from_millis(1500));
    let woken = sleeps() - before;
    rustix::io::write(&*over, &1u64.to_ne_bytes()).expect("written");
    for wait in waits {
        assert_eq!(wait.join().expect("no panic"), Waited::Woken);
    }
    // Once in a second each looks all the same.
    assert!(woken < 60, "woken {woken} times");
}

/// How often a thread of this process has gone to sleep.
fn sleeps_of(thread: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/self/task/{thread}/status")).expect("a thread");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.expect("a line").trim().parse().expect("a number")
}

#[test]
fn what_is_no_ticket_but_has_the_name_of_one_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("slots");
    let slots = Slots::create(&path, 1).expect("slots");
    let never = eventfd(0, EventfdFlags::empty()).expect("an eventfd");
    // More urgent than whoever comes later.
    let ticket = slots.enter(9).expect("a ticket");
    let id = ticket.id();
    let names: Vec<String> = (0..3)
        .map(|later| TicketId::new(9, id.arrived_ns + later, id.process).to_string())
        .collect();
    drop(ticket);
    for name in ["waiting", "running"].map(|name| path.join(name)) {
        fs::create_dir(name.join(&names[0])).expect("a folder");
        mkfifo(&name.join(&names[1]));
        std::os::unix::fs::symlink("nowhere", name.join(&names[2])).expect("a link");
    }
    let mut ticket = slots.enter(0).expect("a ticket");
    assert_eq!(ticket.wait(never.as_fd()).expect("a slot"), Waited::Running);
    assert_eq!(slots.entries().expect("entries").len(), 1);
}

fn mkfifo(path: &Path) {
    let made = Command::new("mkfifo")
        .arg(path)
        .status()
        .expect("mkfifo runs");
    assert!(made.success());
}
