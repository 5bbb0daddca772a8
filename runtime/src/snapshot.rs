//! Snapshots: of a program that stands still, and of one that goes on.
//!
//! ```text
//!  another thread                          the guest's thread
//!  Handle::snapshot
//!    prepare pages ──── request ─────────► safepoint: manifest without frames; divide the process; freeze pages
//!                                            │                  │
//!                                            │ goes on          └─► twin: unwinds its copy of the call stack
//!    frames out of the twin ◄── Captured ────┘                               and stands still
//!    Snapshot::store
//! ```
//!
//! The call stack is unwound in a twin, so the program's own activations stay where they are: nothing has to be compiled
//! and entered again for the program to go on, and its code is as fast as before. Where there can be no twin, or the
//! call stack holds references, which are another process's business, the program itself unwinds and re-enters its
//! frames.

use crate::capture;
use crate::control::{Control, Moment};
use crate::error::{Error, Result};
use crate::frames;
use crate::guest::Guest;
use crate::host::HostState;
use crate::instance::{Instance, State};
use crate::pages::{Frozen, Written};
use crate::program::Program;
use crate::ranges::Ranges;
use crate::twin::{Side, Twin};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};
use wasmtime::Caller;
use wsnap_instrument::control as layout;
use wsnap_snapshots::{
    ImageId, Manifest, MemoryUpdate, PageSource, Store as ImageStore, StoredImage, StoredMemory,
};

/// How long a twin may take to unwind. It has nothing else to do, so one that takes longer has got stuck.
const UNWINDING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a program may go without coming to a safepoint that can ask what to do. Then it unwinds its own call stack
/// at any safepoint, which costs it more.
const PATIENCE: Duration = Duration::from_millis(20);

/// The state of a program at one moment, on its way into a store.
pub struct Snapshot<'i> {
    manifest: Manifest,
    written: Written,
    content: Content<'i>,
    /// Whom to tell what was stored.
    guest: Weak<Guest>,
    program: Program,
    taken_at: SystemTime,
    point: Point,
    captured: Instant,
    pause: Duration,
}

/// Where in its run the program was when its state was captured.
#[derive(Clone, Copy)]
struct Point {
    moment: Moment,
    stdout_bytes: u64,
}

impl Point {
    fn of(host: &HostState, control: &Control) -> Self {
        Self {
            moment: control.moment(),
            stdout_bytes: host.wasi.stdout_bytes(),
        }
    }
}

/// A snapshot that is safe in a store.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The image. The store keeps it as long as this is held.
    pub image: Arc<StoredImage>,
    /// By how many bytes the store has grown.
    pub added_bytes: u64,
}

/// Where the bytes of the memories are, by index.
enum Content<'i> {
    /// In the program, which stands still.
    Standing(Vec<&'i [u8]>),
    /// Set aside, as far as the base does not have them.
    Frozen(Vec<Frozen>),
}

impl Snapshot<'_> {
    /// Everything but the content of the memories.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// When the program had this state, for people.
    pub fn taken_at(&self) -> SystemTime {
        self.taken_at
    }

    /// The point that the program had come to: for [`Handle::stands_since`](crate::Handle::stands_since).
    pub fn moment(&self) -> Moment {
        self.point.moment
    }

    /// How many bytes the program had written to its standard output since it was started or resumed here.
    pub fn stdout_bytes(&self) -> u64 {
        self.point.stdout_bytes
    }

    /// When the state had been captured, for measuring and comparing.
    pub fn captured(&self) -> Instant {
        self.captured
    }

    /// How long the program stood still for it: nothing for one that was standing already.
    pub fn pause(&self) -> Duration {
        self.pause
    }

    /// Stores the snapshot, durably when this returns, and the module with it. What the program's last image in the same
    /// store has is not stored again.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub fn store(&self, store: &ImageStore) -> Result<ImageId> {
        Ok(self.publish(store)?.image.id())
    }

    /// As [`Snapshot::store`], and returns the open image and how much was added to the store.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub fn publish(&self, store: &ImageStore) -> Result<Stored> {
        // Nobody may delete the module before the image names it.
        let _lock = store.lock_shared()?;
        store.put_module_as(self.program.hash(), self.program.wasm())?;
        let base = self.written.base.as_deref();
        let here = base.filter(|base| base.store_directory() == store.directory());
        let memories: Vec<MemoryContent<'_>> = self
            .manifest
            .memories
            .iter()
            .enumerate()
            .map(|(index, memory)| MemoryContent {
                byte_len: memory.byte_len().unwrap_or_default(),
                base: base.map(|base| &base.memories()[index]),
                dirty: &self.written.dirty[index],
                source: match &self.content {
                    Content::Standing(memories) => &memories[index],
                    Content::Frozen(memories) => &memories[index],
                },
            })
            .collect();
        let is_here = base.is_none() || here.is_some();
        let everything: Vec<Range<u64>> = memories.iter().map(MemoryContent::pages).collect();
        let updates: Vec<MemoryUpdate<'_>> = memories
            .iter()
            .zip(&everything)
            .map(|(memory, everything)| MemoryUpdate {
                base: memory.base.filter(|_| is_here),
                byte_len: memory.byte_len,
                dirty: if is_here {
                    memory.dirty.as_slice()
                } else {
                    std::slice::from_ref(everything)
                },
                source: if is_here { memory.source } else { memory },
            })
            .collect();
        let published = store.publish_update(self.manifest.clone(), &updates)?;
        let image = Arc::new(published.image);
        if let Some(guest) = self.guest.upgrade() {
            guest.pages.stored(self.written.moment, image.clone());
        }
        Ok(Stored {
            image,
            added_bytes: published.added_bytes,
        })
    }
}

/// A memory at the moment of a snapshot: what its base has, overlaid with what is dirty.
struct MemoryContent<'s> {
    byte_len: u64,
    base: Option<&'s StoredMemory>,
    dirty: &'s Ranges,
    source: &'s dyn PageSource,
}

impl MemoryContent<'_> {
    fn pages(&self) -> Range<u64> {
        0..self
            .byte_len
            .next_multiple_of(wsnap_snapshots::PAGE_SIZE as u64)
    }
}

impl PageSource for MemoryContent<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self.base {
            Some(base) => base.read_at(offset, buffer).map_err(io::Error::other)?,
            None => buffer.fill(0),
        }
        let end = offset + buffer.len() as u64;
        for range in self.dirty.within(offset..end) {
            let piece = &mut buffer[(range.start - offset) as usize..(range.end - offset) as usize];
            self.source.read_at(range.start, piece)?;
        }
        Ok(())
    }
}

/// Where a running program is asked for snapshots.
#[derive(Default)]
pub(crate) struct Desk {
    /// Whoever waits for one.
    waiting: Mutex<Option<Sender<Result<Captured>>>>,
    /// The program has ended: nobody answers any more.
    is_closed: AtomicBool,
    /// Held by the one whose turn it is.
    turn: Mutex<()>,
}

impl Desk {
    fn ask(&self) -> Receiver<Result<Captured>> {
        let (sender, receiver) = channel();
        self.put_back(sender);
        if self.is_closed.load(Ordering::Acquire) {
            // Dropped here, it tells the receiver.
            self.take();
        }
        receiver
    }

    fn put_back(&self, asker: Sender<Result<Captured>>) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(asker);
    }

    /// The program has ended: whoever waits learns it.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.take();
    }

    fn take(&self) -> Option<Sender<Result<Captured>>> {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// What the guest's thread hands over.
struct Captured {
    /// Without frames, if there is a twin.
    manifest: Manifest,
    twin: Option<Twin>,
    written: Written,
    frozen: Vec<Frozen>,
    taken_at: SystemTime,
    point: Point,
    /// When the pause began.
    since: Instant,
    pause: Duration,
}

/// Takes a snapshot of a running program that goes on, from another thread.
pub(crate) fn of_running(control: &Control, guest: &Weak<Guest>) -> Result<Snapshot<'static>> {
    let ended = || Error::Ended;
    let held = guest.upgrade().ok_or_else(ended)?;
    let _turn = held
        .desk
        .turn
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    // What was impossible for the last snapshot may have been for want of a process, or for a value on the stack.
    control.set_unwinds_for_snapshots(false);
    loop {
        held.pages.prepare();
        let answer = held.desk.ask();
        control.request_snapshot();
        // A program that ends meanwhile answers nothing.
        let captured = loop {
            match answer.recv_timeout(PATIENCE) {
                Ok(captured) => break captured?,
                Err(RecvTimeoutError::Timeout) => control.insist_on_snapshot(),
                Err(RecvTimeoutError::Disconnected) => return Err(ended()),
            }
        };
        if let Some(snapshot) = complete(captured, &held)? {
            return Ok(snapshot);
        }
        control.set_unwinds_for_snapshots(true);
    }
}

/// Adds the frames from the twin. None if the twin got stuck, or its frames hold references.
fn complete(captured: Captured, guest: &Arc<Guest>) -> Result<Option<Snapshot<'static>>> {
    let mut manifest = captured.manifest;
    if let Some(twin) = captured.twin {
        let Some(bytes) = frame_bytes(&twin, guest) else {
            return Ok(None);
        };
        let frames = frames::read(&guest.program, &bytes)?;
        let Some(frames) = capture::plain_frames(&frames) else {
            return Ok(None);
        };
        manifest.frames = frames;
    }
    Ok(Some(Snapshot {
        manifest,
        written: captured.written,
        content: Content::Frozen(captured.frozen),
        guest: Arc::downgrade(guest),
        program: guest.program.clone(),
        taken_at: captured.taken_at,
        point: captured.point,
        captured: captured.since + captured.pause,
        pause: captured.pause,
    }))
}

/// The raw frames that a twin has left in its control memory.
fn frame_bytes(twin: &Twin, guest: &Guest) -> Option<Vec<u8>> {
    if !twin.wait(UNWINDING_TIMEOUT) {
        return None;
    }
    let control = guest.control.memory();
    let base = control.base() as usize;
    let word = |offset: u32| {
        let mut word = [0; 4];
        twin.read(base + offset as usize, &mut word).ok()?;
        Some(u32::from_le_bytes(word))
    };
    for count in [
        layout::SAVED_FUNCTIONS,
        layout::SAVED_EXTERNS,
        layout::SAVED_EXCEPTIONS,
    ] {
        if word(count)? != 0 {
            return None;
        }
    }
    let start = guest.program.parsed().ok()?.control_layout().frames() as usize;
    let end = word(layout::SAVE_POINTER)? as usize;
    if end < start || end > control.size() {
        return None;
    }
    let mut bytes = vec![0; end - start];
    twin.read(base + start, &mut bytes).ok()?;
    Some(bytes)
}

/// What becomes of a guest that was asked for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    GoesOn,
    Unwinds,
}

/// A program has been asked for a snapshot and has come to a safepoint, or was interrupted in a blocking call.
pub(crate) fn in_passing(caller: &mut Caller<'_, HostState>) -> Passage {
    let Some(guest) = caller.data().guest.clone() else {
        return Passage::GoesOn;
    };
    let since = Instant::now();
    if guest.control.unwinds_for_snapshots() {
        return Passage::Unwinds;
    }
    let Some(asker) = guest.desk.take() else {
        return Passage::GoesOn;
    };
    match divide(caller, &guest, since) {
        Divided::Twin => {
            // Hanging up takes a lock that another thread may have held when the processes parted.
            std::mem::forget(asker);
            Passage::Unwinds
        }
        Divided::Original(captured) => {
            // Whoever asked may have gone.
            let _ = asker.send(*captured);
            Passage::GoesOn
        }
        Divided::Impossible => {
            guest.control.set_unwinds_for_snapshots(true);
            guest.desk.put_back(asker);
            Passage::Unwinds
        }
    }
}

/// What came of capturing the state of a program that is at a safepoint.
enum Divided {
    /// This is the twin, which unwinds and does nothing else.
    Twin,
    /// The state, or why there is none.
    Original(Box<Result<Captured>>),
    /// There can be no twin: the program has to unwind its own call stack.
    Impossible,
}

/// Captures the state of a program, whose guest's thread this is, and leaves its call stack to a twin.
fn divide(caller: &mut Caller<'_, HostState>, guest: &Guest, since: Instant) -> Divided {
    let taken_at = SystemTime::now();
    let point = Point::of(caller.data(), &guest.control);
    let manifest = match capture::manifest(caller, guest, &[]) {
        Ok(manifest) => manifest,
        Err(error) => return Divided::Original(Box::new(Err(error))),
    };
    let twin = match Twin::divide() {
        Ok(Side::Twin) => {
            // Freeing memory takes a lock that another thread may have held when the processes parted.
            std::mem::forget(manifest);
            return Divided::Twin;
        }
        Ok(Side::Original(twin)) => twin,
        Err(_) => return Divided::Impossible,
    };
    let captured = guest.pages.freeze().map(|(written, frozen)| Captured {
        manifest,
        twin: Some(twin),
        written,
        frozen,
        taken_at,
        point,
        since,
        pause: since.elapsed(),
    });
    Divided::Original(Box::new(captured.map_err(Error::Freeze)))
}

/// A program asks for a snapshot of itself, and is in the call that does so. None if it has to unwind: then the snapshot is
/// taken when the call stack is unwound, by [`Instance::answer_guest`].
pub(crate) fn of_itself(
    caller: &mut Caller<'_, HostState>,
    guest: &Arc<Guest>,
) -> Option<Result<Snapshot<'static>>> {
    match divide(caller, guest, Instant::now()) {
        Divided::Twin | Divided::Impossible => None,
        Divided::Original(captured) => captured
            .and_then(|captured| complete(captured, guest))
            .transpose(),
    }
}

impl Instance {
    /// Takes a snapshot of the program, which must be suspended, and stands still until the snapshot has been stored or
    /// dropped. [`Handle::snapshot`](crate::Handle::snapshot) takes one of a program that goes on.
    ///
    /// # Errors
    ///
    /// [`Error::NotSuspended`]; [`Error::NotStorable`] and [`Error::Wasi`] when the program holds something that cannot
    /// be part of an image. The program can go on all the same.
    pub fn snapshot(&mut self) -> Result<Snapshot<'_>> {
        let guest = self.guest.clone().ok_or(Error::Bare)?;
        let manifest = self.manifest(&guest)?;
        let written = guest.pages.written();
        let point = Point::of(self.store.data(), &guest.control);
        let memories = self.memories().iter();
        let memories = memories.filter_map(|mapping| mapping.view(0..mapping.size(), &self.store));
        Ok(Snapshot {
            manifest,
            written,
            content: Content::Standing(memories.collect()),
            guest: Arc::downgrade(&guest),
            program: self.program.clone(),
            taken_at: SystemTime::now(),
            point,
            captured: Instant::now(),
            pause: Duration::ZERO,
        })
    }

    fn manifest(&mut self, guest: &Guest) -> Result<Manifest> {
        self.read_frames()?;
        let State::Suspended(frames) = &self.state else {
            return Err(Error::NotSuspended);
        };
        capture::manifest(&mut self.store, guest, frames)
    }

    /// The program is suspended: hands over what was asked for meanwhile.
    pub(crate) fn answer_desk(&mut self, since: Instant) {
        let Some(guest) = self.guest.clone() else {
            return;
        };
        let Some(asker) = guest.desk.take() else {
            return;
        };
        let _ = asker.send(self.captured(&guest, since));
    }

    /// The program is suspended because it asked for a snapshot of itself: hands it over, and leaves the answer for the
    /// call when it is made again.
    pub(crate) fn answer_guest(&mut self, since: Instant) {
        let Some(guest) = self.guest.clone() else {
            return;
        };
        let captured = self.captured(&guest, since);
        let snapshot = captured.and_then(|captured| complete(captured, &guest));
        if let Some(snapshot) = snapshot.transpose() {
            self.store.data_mut().own.answer(snapshot);
        }
    }

    fn captured(&mut self, guest: &Guest, since: Instant) -> Result<Captured> {
        let taken_at = SystemTime::now();
        let manifest = self.manifest(guest)?;
        let point = Point::of(self.store.data(), &guest.control);
        let (written, frozen) = guest.pages.freeze().map_err(Error::Freeze)?;
        Ok(Captured {
            manifest,
            twin: None,
            written,
            frozen,
            taken_at,
            point,
            since,
            pause: since.elapsed(),
        })
    }
}
