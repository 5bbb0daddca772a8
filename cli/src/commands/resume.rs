//! `wsnap resume`.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use wsnap::snapshots::Store;

use crate::arguments::{Directory, Variable};
use crate::failure::Failure;
use crate::launch::{self, FilesPolicy, Resumption};
use crate::listen::Listen;
use crate::output;
use crate::places::Places;
use crate::rollout;
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
        let (store, id) = places.resolve(&reference)?;
        let image = Arc::new(store.load(id)?);
        launch::verify(&store, &image)?;
        let name = self.name(&store, &reference)?;
        // Whoever has lost the record can still go on from the image.
        let record = store.record_of(id).ok().flatten();
        let (mut session, job) =
            Session::prepare(places, &self.options, name, &self.directories, false)?;
        if let Some(mut job) = job {
            // Whoever resumes a program by hand knows why.
            job.forget()?;
            session.hold(job);
        }
        let listeners = Listen::open_all(&self.listeners)?;
        let chosen = Listen::chosen(&self.listeners, &listeners);
        let stdout = session.cut_output(record.as_ref())?;
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
        if let Some(rejection) = record.as_ref().and_then(|record| record.rejected.as_ref()) {
            output::message(format_args!(
                "this image was rejected before: {}",
                output::printable(&rejection.reason)
            ));
        }
        session.point_at(&store, id)?;
        session.listening(&self.listeners, chosen).run(
            instance,
            session::origin(record.as_ref()),
            &label,
        )
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
    let stopped = rollout::stopped(&directory)?;
    if stopped.is_empty() {
        output::message("`snap --all --stop` has left no program to go on with");
        return Ok(ExitCode::SUCCESS);
    }
    let mut left = stopped.clone();
    let mut failed = 0;
    for program in &stopped {
        match rollout::go_on(program, &directory, places.chosen_cache()?.as_deref()) {
            Ok(pid) => {
                output::result(format_args!("{}: process {pid}", program.label()))?;
                left.retain(|other| other != program);
                // One by one, so that whatever happens to this process none goes on twice.
                rollout::set_stopped(&directory, &left)?;
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
