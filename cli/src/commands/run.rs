//! `wsnap run`.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use wsnap::Instance;
use wsnap::snapshots::ModuleHash;
use wsnap::wasi::{StandardStreams, Stdio, Wasi, WasiConfig};
use wsnap_supervision::Attempt;

use crate::arguments::{Directory, NewVolume, Variable};
use crate::failure::Failure;
use crate::launch::Resumption;
use crate::listen::Listen;
use crate::places::Places;
use crate::program::{self, Settings};
use crate::session::start::StartsAt;
use crate::session::words::{CalledAs, own_words};
use crate::session::{self, SavingArgs, Session};
use crate::supervised::{self, RestartArgs};

/// Run a program
///
/// Ctrl-C or SIGTERM suspend it: its whole state is stored as an image, a message says how to go on, and the exit code
/// is 85. Otherwise the exit code is the program's own, or 134 if it traps.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wsnap run sim.wasm --steps 1000000\n  wsnap run --dir data::/data --env LANG=C python.wasm /data/script.py\n  wsnap run --volume files::/data sim.wasm\n  wsnap run --name sim --stop-at after=10m --id-file sim.id sim.wasm\n  wsnap run --name sim --continue --every 15s --restart on-crash --output sim.out sim.wasm\n  wsnap run --invoke fib fib.wat 30"
)]
pub(crate) struct Run {
    /// Grant the program a directory, under its own path or another; can be given several times
    #[arg(long = "dir", value_name = "HOST[::GUEST]")]
    directories: Vec<Directory>,
    /// Give the program a volume: an empty file system that is part of its images; can be given several times
    #[arg(long = "volume", value_name = "NAME::GUEST")]
    volumes: Vec<NewVolume>,
    /// Let the program accept connections on a TCP socket that listens on this address; can be given several times
    #[arg(long = "tcplisten", value_name = "HOST:PORT")]
    listeners: Vec<Listen>,
    /// Set an environment variable, or pass on the one of this name; can be given several times
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    variables: Vec<Variable>,
    /// Call this exported function, with the arguments as its parameters, and print what it returns
    #[arg(long, value_name = "FUNCTION")]
    invoke: Option<String>,
    /// Make what the program computes depend on nothing but its input: fixed clocks, fixed random bytes, the same
    /// floating-point bits everywhere
    #[arg(long)]
    deterministic: bool,
    /// What the random bytes of a deterministic program follow from: other bytes for each number
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        requires = "deterministic"
    )]
    seed: u64,
    /// Compile for another target; pulley64 is the portable interpreter
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    /// Run the program unrewritten with wasmtime's defaults: nothing can suspend it
    #[arg(long, conflicts_with_all = ["name", "stop_at", "every", "output", "directory", "max_wasm_stack", "timeout", "cpu_timeout"])]
    bare: bool,
    #[command(flatten)]
    restart: RestartArgs,
    #[command(flatten)]
    options: session::Options,
    /// The program, in WebAssembly's binary or text format, and its arguments
    #[arg(
        value_names = ["MODULE", "ARGUMENT"],
        required = true,
        num_args = 1..,
        trailing_var_arg = true
    )]
    module_and_arguments: Vec<OsString>,
}

impl Run {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        let (path, arguments) = self.module_and_arguments()?;
        let wasm = program::read_module(&path)?;
        let listeners = Listen::open_all(&self.listeners)?;
        let chosen = Listen::chosen(&self.listeners, &listeners);
        let start = Start {
            run: &self,
            places,
            label: path.display().to_string(),
            path,
            arguments,
            listeners,
        };
        if self.bare {
            let instance = start.instance(wasm, Stdio::Inherit)?;
            Listen::announce(&chosen);
            return session::run_bare(instance, &self.options.limits);
        }
        let name = self.options.name.clone();
        let called_as = CalledAs::Run {
            continues: self.restart.continues(),
            keeping: self.restart.words_to_keep(&own_words()),
            target: self.target.clone(),
        };
        let (session, job) =
            Session::prepare(places, &self.options, name, &self.directories, called_as)?;
        let mut session = session.listening(&self.listeners, chosen);
        let label = start.label.clone();
        match job {
            Some(job) if self.restart.is_supervised() => {
                supervised::run(session, job, &self.restart, &label, |session, attempt| {
                    start.attempt(session, &wasm, attempt)
                })
            }
            job => {
                if let Some(job) = job {
                    session.hold(job);
                }
                let instance = start.instance(wasm, session.stdout()?)?;
                session.run(instance, StartsAt::Beginning, &label)
            }
        }
    }

    /// The program's name, if it is given one.
    pub fn name(&self) -> Option<&str> {
        self.options.name.as_deref()
    }

    /// Whether it goes on from what there is.
    pub fn continues(&self) -> bool {
        self.restart.continues()
    }

    /// When images are taken.
    pub fn saving(&self) -> &SavingArgs {
        &self.options.saving
    }

    /// The exit code of a suspension.
    pub fn suspended_exit_code(&self) -> u8 {
        self.options.suspended_exit_code
    }

    fn settings(&self) -> Settings {
        Settings {
            target: self.target.clone(),
            deterministic: self.deterministic,
            bare: self.bare,
            resumed: false,
            stack_bytes: self.options.limits.stack_bytes(),
            countable_safepoints: self.options.counts_safepoints(),
        }
    }

    fn module_and_arguments(&self) -> Result<(PathBuf, Vec<String>), Failure> {
        let Some((module, arguments)) = self.module_and_arguments.split_first() else {
            return Err(Failure::new("no module is given"));
        };
        let mut texts = Vec::new();
        for argument in arguments {
            let Some(text) = argument.to_str() else {
                return Err(Failure::new(format!(
                    "the argument {argument:?} is not UTF-8 text"
                )));
            };
            texts.push(text.to_owned());
        }
        Ok((module.into(), texts))
    }
}

/// What a program is started from.
struct Start<'a> {
    run: &'a Run,
    places: &'a Places,
    path: PathBuf,
    label: String,
    arguments: Vec<String>,
    listeners: Vec<TcpListener>,
}

impl Start<'_> {
    /// Starts the program or resumes it from an image, up to where it would run.
    fn attempt(
        &self,
        session: &mut Session<'_>,
        wasm: &[u8],
        attempt: &Attempt,
    ) -> Result<Instance, Failure> {
        let stdout = session.stdout()?;
        let Some(image) = &attempt.image else {
            return self.instance(wasm.to_vec(), stdout);
        };
        if image.manifest().module != ModuleHash::of(wasm) {
            return Err(Failure::new(format!(
                "image {} is not of {}, but of another module",
                image.id(),
                self.label
            ))
            .hint("name another program with --name, or run this one without --continue to start it from the beginning"));
        }
        let run = self.run;
        let (instance, _) = Resumption {
            directories: &run.directories,
            variables: &run.variables,
            listeners: self.listeners()?,
            files: run.restart.files,
            stdout,
            target: run.target.as_deref(),
            options: &run.options,
        }
        .resume(self.places, &self.places.create_store()?, image)?;
        Ok(instance)
    }

    /// Starts the program from the beginning, up to where it would run.
    fn instance(&self, wasm: Vec<u8>, stdout: Stdio) -> Result<Instance, Failure> {
        let run = self.run;
        let wasi = self.wasi(stdout)?;
        let engine = run.settings().engine(self.places)?;
        let (program, _) = program::compile(&engine, wasm.into(), &self.label, None)?;
        let call = program::call(&program, run.invoke.as_deref(), &self.arguments)
            .map_err(|failure| failure.about(&self.label))?;
        program
            .start(wasi, call)
            .map_err(|error| Failure::from(error).about(&self.label))
    }

    fn wasi(&self, stdout: Stdio) -> Result<Wasi, Failure> {
        let run = self.run;
        let mut args = vec![program_name(&self.path)];
        args.extend_from_slice(&self.arguments);
        Ok(Wasi::new(WasiConfig {
            args,
            env: Variable::resolve_all(&run.variables)?,
            preopens: Directory::open_all(&run.directories)?,
            volumes: NewVolume::grant_all(&run.volumes)?,
            listeners: self.listeners()?,
            streams: StandardStreams {
                stdout,
                ..StandardStreams::default()
            },
            deterministic_seed: run.deterministic.then(|| random_key(run.seed)),
        })?)
    }

    /// The sockets, for one attempt of several.
    fn listeners(&self) -> Result<Vec<TcpListener>, Failure> {
        let again = self.listeners.iter().map(TcpListener::try_clone);
        again
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::new(format!("cannot give the program its sockets: {error}")))
    }
}

/// The key of the random stream of a deterministic program: the same everywhere.
fn random_key(seed: u64) -> [u8; 32] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key
}

/// What the program finds as its first argument: the module's file name.
fn program_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}
