//! A program that is kept running: its name in a store, which this process has to itself, and its journal.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use wsnap::snapshots::{
    Damage, History, ImageId, JobLock, NewRecord, Record, Rejection, Store, StoreError, StoredImage,
};

use crate::journal::{Ancestor, Death, Journal, Kind, Scratch, Verdict};
use crate::keeper::{Origin, unix_ms};

/// The program of one name in one store. Nobody else runs it as long as this is there.
#[derive(Debug)]
pub struct Job {
    store: Store,
    name: String,
    journal: Journal,
    has_journal: bool,
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
    /// How long the output file has to be, in bytes.
    pub fn output_bytes(&self) -> u64 {
        let record = self.record.as_ref();
        record.and_then(|record| record.output_bytes).unwrap_or(0)
    }
}

impl Job {
    /// Takes the name for this process and reads what is known of it. `holder` is what others are told who want it.
    ///
    /// # Errors
    ///
    /// [`StoreError::JobTaken`]; [`StoreError::Damaged`] when the journal is; [`StoreError::InvalidName`];
    /// [`StoreError::Io`].
    pub fn open(store: &Store, name: &str, holder: &str) -> Result<Self, StoreError> {
        let lock = store.lock_job(name, holder)?;
        let journal = read(store, name)?;
        Ok(Self {
            store: store.clone(),
            name: name.to_owned(),
            has_journal: journal.is_some(),
            journal: journal.unwrap_or_default(),
            _lock: lock,
        })
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
    /// and what was rejected or given up says nothing of this one.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn start_over(&mut self) -> Result<(), StoreError> {
        let scratch = self.scratch()?;
        self.journal = Journal::default();
        if scratch.head.is_none() {
            return self.forget();
        }
        self.journal.scratch = Some(scratch);
        self.write()
    }

    /// Somebody has decided from which image the program goes on: what was rejected or given up before does not matter.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn forget(&mut self) -> Result<(), StoreError> {
        self.journal = Journal::default();
        if self.has_journal {
            self.store.remove_job_journal(&self.name)?;
            self.has_journal = false;
        }
        Ok(())
    }

    /// An attempt that is still open ended with its process: what follows from that.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn recover(&mut self, window: Duration) -> Result<Option<(Death, Verdict)>, StoreError> {
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
    /// [`StoreError`].
    pub fn next(
        &mut self,
        window: Duration,
        mut on_death: impl FnMut(&Death, &Verdict),
    ) -> Result<Attempt, StoreError> {
        loop {
            let Some(record) = self.ancestors()?.into_iter().next() else {
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
        let latest = self.ancestors()?.first().map(ancestor);
        self.journal.goes_on(latest, now_ms());
        self.write()
    }

    /// The program has come to its end: whoever runs it next starts it from the beginning.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn finished(&mut self) -> Result<(), StoreError> {
        let scratch = self.scratch()?;
        self.journal = Journal::default();
        self.journal.scratch = Some(scratch);
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
    /// rejected.
    fn ancestors(&self) -> Result<Vec<Record>, StoreError> {
        let Some(head) = self.store.latest(&self.name)? else {
            return Ok(Vec::new());
        };
        let newest = match self.store.record_of(head)? {
            Some(record) => record,
            // Somebody has removed its record. The image is as good without.
            None => {
                let mut record = NewRecord::new(head, now_ms(), "found");
                record.name = Some(self.name.clone());
                match self.store.put_record(record) {
                    Ok(record) => record,
                    Err(StoreError::Missing { .. }) => return Ok(Vec::new()),
                    Err(error) => return Err(error),
                }
            }
        };
        let is_of_another_run = self.journal.scratch.is_some_and(|scratch| {
            scratch.head == Some(head) && newest.taken_at_ms < scratch.at_ms
        });
        if is_of_another_run {
            return Ok(Vec::new());
        }
        let (records, _) = self.store.readable_records()?;
        let history = History::new(&records);
        let ancestry = history.ancestry(head);
        Ok(ancestry
            .filter(|record| record.rejected.is_none())
            .cloned()
            .collect())
    }

    fn scratch(&self) -> Result<Scratch, StoreError> {
        Ok(Scratch {
            head: self.store.latest(&self.name)?,
            at_ms: now_ms(),
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

    fn write(&mut self) -> Result<(), StoreError> {
        write(&self.store, &self.name, &self.journal)?;
        self.has_journal = true;
        Ok(())
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
