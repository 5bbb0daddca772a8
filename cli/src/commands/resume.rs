//! `wsnap resume`.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use wsnap::snapshots::{Record, Store};

use crate::arguments::{Directory, Variable};
use crate::failure::Failure;
use crate::launch::{self, FilesPolicy, Resumption};
use crate::listen::Listen;
use crate::output;
use crate::places::Places;
use crate::rollout::{self, GoneOn, Stopped};
use crate::session::start::StartsAt;
use crate::session::words::CalledAs;
use crate::session::{self, Session};

/// Go on from an image
///
/// Directories are granted again, under the names that the program knows them by, and sockets to listen on in their old
/// order; connections are found reset. The image stays as it is: it can be
/// resumed any number of times, also at once.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wsnap resume 3f2a9c01\n  wsnap resume --dir data::/data sim\n  wsnap resume --stop-at after=1h --id-file sim.id \"$(cat sim.id)\"\n  wsnap resume --all"
)]
pub(crate) struct Resume {
    /// Grant the program a directory again, under the name that it knows; can be given several times
    #[arg(long = "dir", value_name = "HOST[::GUEST]")]
    directories: Vec<Directory>,
    /// Let the program accept connections on a TCP socket that listens on this address, in the order in which it was given them first; can be given several times
    #[arg(long = "tcplisten", value_name = "HOST:PORT")]
    listeners: Vec<Listen>,
    /// Set or replace an environment variable, for programs that look again; can be given several times
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    variables: Vec<Variable>,
    /// What is expected of the files that the program had open
    #[arg(long, value_enum, default_value_t)]
    files: FilesPolicy,
    /// Compile for another target; pulley64 is the portable interpreter
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    #[command(flatten)]
    options: session::Options,
    /// The image: an id, the first digits of one, a tag, or a program's name (its latest image)
    #[arg(value_name = "REF", required_unless_present = "all")]
    reference: Option<String>,
    /// Go on with all programs that `snap --all --stop` has stopped, each in a process of its own and as it was run; what they
    /// print goes to `wsnap-NAME.log` in the directory that each was run in
    #[arg(long, conflicts_with_all = ["reference", "directories", "listeners", "variables", "target", "name", "stop_at", "id_file", "labels", "output", "every", "directory"])]
    all: bool,
}

impl Resume {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        if self.all {
            return resume_all(places);
        }
        let reference = self.reference.clone().unwrap_or_default();
        let (store, _) = places.resolve(&reference)?;
        let name = self.name(&store, &reference)?;
        let called_as = CalledAs::Resume {
            files: self.files.to_string(),
            target: self.target.clone(),
        };
        let (mut session, job) = Session::prepare(
            places,
            &self.options,
            name.clone(),
            &self.directories,
            called_as,
        )?;
        if let Some(job) = job {
            session.hold(job);
        }
        // Only now, since whoever had the name until now may have left a newer image.
        let id = match &name {
            // Of a program's name and a tag that are the same, the name is meant.
            Some(name) if *name == reference => match store.latest(name)? {
                Some(id) => id,
                None => store.resolve(&reference)?,
            },
            _ => store.resolve(&reference)?,
        };
        let image = Arc::new(store.load(id)?);
        launch::verify(&store, &image)?;
        // Whoever has lost the record can still go on from the image.
        let mut records = store
            .readable_records_of(id)
            .map_or_else(|_| Vec::new(), |all| all.0);
        // Another program may have come to the same state.
        let is_own = |record: &Record| name.is_some() && record.name == name;
        let own = records.iter().rposition(is_own);
        let record = match own {
            Some(own) => Some(records.swap_remove(own)),
            None => records.pop(),
        };
        let start = StartsAt::Image(id, record.map(Box::new));
        session.check_output(start.output_bytes())?;
        let listeners = Listen::open_all(&self.listeners)?;
        let chosen = Listen::chosen(&self.listeners, &listeners);
        let stdout = session.stdout()?;
        let (instance, label) = Resumption {
            directories: &self.directories,
            variables: &self.variables,
            listeners,
            files: self.files,
            stdout,
            target: self.target.as_deref(),
            options: &self.options,
        }
        .resume(places, &store, &image)?;
        if let StartsAt::Image(_, Some(record)) = &start
            && let Some(rejection) = &record.rejected
        {
            output::message(format_args!(
                "this image was rejected before: {}",
                output::printable(&rejection.reason)
            ));
        }
        session
            .listening(&self.listeners, chosen)
            .run(instance, start, &label)
    }

    /// A program that is resumed by its name keeps it.
    fn name(&self, store: &Store, reference: &str) -> Result<Option<String>, Failure> {
        if self.options.name.is_some() {
            return Ok(self.options.name.clone());
        }
        // The order in which the store looks: a tag comes first.
        let is_tag = store.tags()?.contains_key(reference);
        let is_name = !is_tag && store.names()?.contains_key(reference);
        Ok(is_name.then(|| reference.to_owned()))
    }
}

fn resume_all(places: &Places) -> Result<ExitCode, Failure> {
    let directory = places.store_directory()?;
    if rollout::stopped(&directory)?.is_empty() {
        output::message("`snap --all --stop` has left no program to go on with");
        return Ok(ExitCode::SUCCESS);
    }
    // Nobody else goes on with them at the same time.
    let _going_on = rollout::lock_going_on(&directory)?;
    let stopped = rollout::stopped(&directory)?;
    let mut failed = 0;
    for program in &stopped {
        // Somebody may have gone on with it meanwhile.
        let is_left = |other: &Stopped| other.is_same(program);
        if !rollout::stopped(&directory)?.iter().any(is_left) {
            continue;
        }
        match rollout::go_on(program, &directory, places.chosen_cache()?.as_deref()) {
            Ok(GoneOn::Process(pid)) => {
                output::result(format_args!("{}: process {pid}", program.label()))?;
            }
            Ok(GoneOn::Finished) => {
                output::message(format_args!("{} has come to its end", program.label()));
            }
            Err(failure) => {
                failure.print();
                failed += 1;
            }
        }
    }
    match failed {
        0 => Ok(ExitCode::SUCCESS),
        _ => Err(Failure::new(format!(
            "{} did not go on",
            output::count(failed, "program", "programs")
        ))
        .hint("`wsnap resume --all` tries those again")),
    }
}
