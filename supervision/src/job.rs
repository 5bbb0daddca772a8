//! A program that is kept running: its name in a store, which this process has to itself, and its journal.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use wsnap::snapshots::{
    Damage, DecodeError, History, ImageId, JobLock, NewRecord, Record, Rejection, Store,
    StoreError, StoredImage,
};

use crate::journal::{Ancestor, Death, Journal, Kind, SCRATCH_RECORDS_MAX, Scratch, Verdict};
use crate::keeper::{Origin, unix_ms};

/// The program of one name in one store. Nobody else runs it as long as this is there.
#[derive(Debug)]
pub struct Job {
    store: Store,
    name: String,
    journal: Journal,
    /// The journal cannot be read, and nobody has said yet that it does not matter.
    damage: Option<StoreError>,
    _lock: JobLock,
}

/// How the program is to be started next.
#[derive(Debug)]
pub struct Attempt {
    /// What to resume; none to start from the beginning. It has been verified.
    pub image: Option<Arc<StoredImage>>,
    /// Its record.
    pub record: Option<Record>,
    /// What a [`Keeper`](crate::Keeper) needs to know of it.
    pub origin: Origin,
    /// How often the program will have been resumed then.
    pub resume_count: u64,
}

impl Attempt {
    /// What the output file is to be cut to, in bytes; none if nobody knows what of it the program has printed.
    pub fn output_bytes(&self) -> Option<u64> {
        match &self.record {
            Some(record) => record.output_bytes,
            None => Some(0),
        }
    }
}

impl Job {
    /// Takes the name for this process and reads what is known of it. `holder` is what others are told who want it. A journal
    /// that is damaged is an error only to whoever wants to go on by it: [`Job::recover`], [`Job::next`].
    ///
    /// # Errors
    ///
    /// [`StoreError::JobTaken`]; [`StoreError::InvalidName`]; [`StoreError::Io`].
    pub fn open(store: &Store, name: &str, holder: &str) -> Result<Self, StoreError> {
        let lock = store.lock_job(name, holder)?;
        let (journal, damage) = match read(store, name) {
            Ok(journal) => (journal, None),
            Err(error @ StoreError::Damaged { .. }) => (None, Some(error)),
            Err(error) => return Err(error),
        };
        Ok(Self {
            store: store.clone(),
            name: name.to_owned(),
            journal: journal.unwrap_or_default(),
            damage,
            _lock: lock,
        })
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The program's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is known of it.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The program is to be started from the beginning, whatever has been: its images up to now are those of another run,
    /// and what was rejected or given up says nothing of this one. Nothing is written before [`Job::begin`] or [`Job::save`]:
    /// a program that turns out not to run has lost nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn start_over(&mut self) -> Result<(), StoreError> {
        let scratch = self.scratch()?;
        self.forget();
        if scratch.head.is_some() || !scratch.records.is_empty() {
            self.journal.scratch = Some(scratch);
        }
        Ok(())
    }

    /// Somebody has decided from which image the program goes on: what was rejected or given up before does not matter. Nothing
    /// is written before [`Job::begin`] or [`Job::save`].
    pub fn forget(&mut self) {
        self.journal = Journal::default();
        self.damage = None;
    }

    /// Writes down what is known, durably, for a program that nobody keeps running.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn save(&self) -> Result<(), StoreError> {
        if self.journal == Journal::default() {
            return self.store.remove_job_journal(&self.name);
        }
        self.write()
    }

    fn check_journal(&mut self) -> Result<(), StoreError> {
        self.damage.take().map_or(Ok(()), Err)
    }

    /// An attempt that is still open ended with its process: what follows from that.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn recover(&mut self, window: Duration) -> Result<Option<(Death, Verdict)>, StoreError> {
        self.check_journal()?;
        if self.journal.attempt.is_none() {
            return Ok(None);
        }
        let death = Death::new(
            Kind::Unknown,
            "its process was killed, or the machine went down",
            now_ms(),
            0,
        );
        let verdict = self.died(death.clone(), window)?;
        Ok(Some((death, verdict)))
    }

    /// Finds the newest image that the program can go on from, and verifies it. One that turns out to be damaged is rejected
    /// and told to `on_death`.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; that an image is of another version of the format, too: nothing is wrong with it.
    pub fn next(
        &mut self,
        window: Duration,
        mut on_death: impl FnMut(&Death, &Verdict),
    ) -> Result<Attempt, StoreError> {
        self.check_journal()?;
        loop {
            let Some(record) = self.newest()? else {
                return Ok(self.attempt(None, None));
            };
            let loaded = self.store.load(record.image).and_then(|image| {
                self.store.verify_unverified(&image, &|_| ())?;
                Ok(image)
            });
            let error = match loaded {
                Ok(image) => return Ok(self.attempt(Some(Arc::new(image)), Some(record))),
                Err(error) => error,
            };
            match error {
                StoreError::Damaged {
                    source: Damage::Decode(DecodeError::Version { .. }),
                    ..
                } => return Err(error),
                StoreError::Missing { .. }
                | StoreError::Damaged { .. }
                | StoreError::DamagedMemory { .. } => {
                    // It is not resumed.
                    self.journal.goes_on(Some(ancestor(&record)), now_ms());
                    let death = Death::new(Kind::Image, describe(&error), now_ms(), 0);
                    let verdict = self.died(death.clone(), window)?;
                    on_death(&death, &verdict);
                }
                error => return Err(error),
            }
        }
    }

    /// The record of the snapshot that the program goes on from the next time, unless that turns out to be damaged; none for the
    /// beginning.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn newest(&self) -> Result<Option<Record>, StoreError> {
        Ok(self.ancestors()?.into_iter().next())
    }

    fn attempt(&self, image: Option<Arc<StoredImage>>, record: Option<Record>) -> Attempt {
        let origin = Origin {
            record: record.as_ref().map(|record| record.id),
            age: Duration::from_millis(record.as_ref().map_or(0, |record| record.ran_ms)),
        };
        let resume_count = match &image {
            Some(_) => self.journal.resumes.saturating_add(1),
            None => 0,
        };
        Attempt {
            image,
            record,
            origin,
            resume_count,
        }
    }

    /// The program runs from now on. It is durable on return, so that whatever happens to this process, the next one
    /// knows of it.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn begin(&mut self, attempt: &Attempt) -> Result<(), StoreError> {
        match &attempt.record {
            Some(record) => {
                self.point_at(record.image)?;
                self.journal.begin(Some(ancestor(record)), now_ms());
            }
            None => {
                self.journal.scratch = Some(self.scratch()?);
                self.journal.begin(None, now_ms());
            }
        }
        self.write()
    }

    /// From any thread of the process that has the job: closes its attempt, because the process is about to end by its own
    /// choice, which tells nothing against the program. The job is not to be used any more.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn abandon(store: &Store, name: &str) -> Result<(), StoreError> {
        let Some(mut journal) = read(store, name)? else {
            return Ok(());
        };
        journal.stopped();
        write(store, name, &journal)
    }

    /// How long the program had run where the attempt that is being made began.
    pub fn attempt_age(&self) -> Duration {
        let attempt = self.journal.attempt;
        Duration::from_millis(attempt.map_or(0, |attempt| attempt.from_age_ms))
    }

    /// The program has been stopped and is to go on later from its latest image.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn stopped(&mut self) -> Result<(), StoreError> {
        self.journal.stopped();
        self.write()
    }

    /// The program that was stopped goes on where it stands, from its latest image.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn goes_on(&mut self) -> Result<(), StoreError> {
        let latest = self.newest()?.as_ref().map(ancestor);
        self.journal.goes_on(latest, now_ms());
        self.write()
    }

    /// The program has come to its end: whoever runs it next starts it from the beginning.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn finished(&mut self) -> Result<(), StoreError> {
        self.journal = Journal::finished(self.scratch()?);
        self.write()
    }

    /// The attempt is dead: marks what is to be rejected, durably, and says what follows.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn died(&mut self, death: Death, window: Duration) -> Result<Verdict, StoreError> {
        let records = self.ancestors()?;
        let ancestors: Vec<Ancestor> = records.iter().map(ancestor).collect();
        let rejection = Rejection {
            at_ms: death.at_ms,
            reason: death.reason.clone(),
        };
        let verdict = self.journal.died(death, &ancestors, window);
        let (Verdict::GoOn { rejected } | Verdict::GiveUp { rejected, .. }) = &verdict;
        for record in rejected {
            match self.store.reject(*record, &rejection) {
                // It has just been removed.
                Ok(()) | Err(StoreError::Missing { .. }) => (),
                Err(error) => return Err(error),
            }
        }
        let left = records.iter().find(|record| !rejected.contains(&record.id));
        if let (false, Some(left)) = (rejected.is_empty(), left) {
            self.point_at(left.image)?;
        }
        self.write()?;
        Ok(verdict)
    }

    /// The snapshots that the program can go on from, newest first: its latest and those that this came from, none of them
    /// rejected. Another program can have reached the same state, and its records are not this one's.
    fn ancestors(&self) -> Result<Vec<Record>, StoreError> {
        let Some(head) = self.store.latest(&self.name)? else {
            return Ok(Vec::new());
        };
        let (records, _) = self.store.readable_records()?;
        let mut own = records.iter().rev().filter(|record| self.is_own(record));
        let newest = match own.find(|record| record.image == head) {
            Some(record) => Some(record.clone()),
            None => self.without_record(head, &records)?,
        };
        let Some(newest) = newest else {
            return Ok(Vec::new());
        };
        let history = History::new(&records);
        let older = history.lineage(newest.parent).cloned();
        Ok(std::iter::once(newest.clone())
            .chain(older)
            .take_while(|record| !self.is_of_another_run(record))
            .filter(|record| record.rejected.is_none() && self.is_own(record))
            .collect())
    }

    /// What stands for the record of the latest image, which this program has none of that can be read. None if that image is of
    /// another run.
    fn without_record(
        &self,
        head: ImageId,
        records: &[Record],
    ) -> Result<Option<Record>, StoreError> {
        let others = match self.store.record_of(head) {
            Ok(others) => others,
            Err(StoreError::Damaged { .. }) => {
                // Nobody knows what the program had printed there. The snapshot before has all that it needs.
                let is_usable = |record: &&Record| {
                    self.is_own(record)
                        && record.rejected.is_none()
                        && !self.is_of_another_run(record)
                };
                if let Some(before) = records.iter().rev().find(is_usable) {
                    return Ok(Some(before.clone()));
                }
                None
            }
            Err(error) => return Err(error),
        };
        let scratch = self.journal.scratch.as_ref();
        if scratch.is_some_and(|scratch| scratch.head == Some(head)) {
            return Ok(None);
        }
        // Somebody has removed its record, or pointed the name at the image of another program. It is as good without.
        let mut record = NewRecord::new(head, now_ms(), "found");
        record.name = Some(self.name.clone());
        if let Some(others) = others {
            record.ran_ms = others.ran_ms;
            record.output_bytes = others.output_bytes;
        }
        match self.store.put_record(record) {
            Ok(record) => Ok(Some(record)),
            Err(StoreError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_own(&self, record: &Record) -> bool {
        record.name.as_deref() == Some(&self.name)
    }

    fn is_of_another_run(&self, record: &Record) -> bool {
        let scratch = self.journal.scratch.as_ref();
        scratch.is_some_and(|scratch| scratch.is_before(record))
    }

    /// What there is of the program now.
    fn scratch(&self) -> Result<Scratch, StoreError> {
        let records = self.store.records_named(&self.name)?;
        let newest = records.iter().rev().take(SCRATCH_RECORDS_MAX);
        Ok(Scratch {
            head: self.store.latest(&self.name)?,
            at_ms: now_ms(),
            records: newest.map(|record| record.id).collect(),
        })
    }

    fn point_at(&self, image: ImageId) -> Result<(), StoreError> {
        if self.store.latest(&self.name)? == Some(image) {
            return Ok(());
        }
        match self.store.set_name(&self.name, image) {
            // Whoever tries to go on from it will see.
            Err(StoreError::Missing { .. }) => Ok(()),
            result => result,
        }
    }

    fn write(&self) -> Result<(), StoreError> {
        write(&self.store, &self.name, &self.journal)
    }
}

fn read(store: &Store, name: &str) -> Result<Option<Journal>, StoreError> {
    let Some(text) = store.job_journal(name)? else {
        return Ok(None);
    };
    let journal = serde_json::from_slice(&text).map_err(|error| {
        let problem = error.to_string();
        store.damaged_journal(name, Damage::Journal { problem })
    })?;
    Ok(Some(journal))
}

fn write(store: &Store, name: &str, journal: &Journal) -> Result<(), StoreError> {
    let text =
        serde_json::to_vec(journal).expect("numbers, texts and lists of them can be written");
    store.set_job_journal(name, text)
}

fn ancestor(record: &Record) -> Ancestor {
    Ancestor {
        record: record.id,
        age_ms: record.ran_ms,
    }
}

fn now_ms() -> u64 {
    unix_ms(SystemTime::now())
}

/// An error with its causes.
fn describe(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
