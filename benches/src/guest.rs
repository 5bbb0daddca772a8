//! A program of the table of runs, started and resumed in this process, with its output going nowhere.

use rustix::time::{ClockId, clock_gettime};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use wsnap::snapshots::{StoreError, StoredImage};
use wsnap::wasi::{
    DecodeError, Grants, Preopen, RestoreError, SavedState, StandardStreams, Stdio, VolumeGrant,
    Wasi, WasiConfig, WasiError,
};
use wsnap::{Call, Engine, EngineConfig, Instance, Outcome, Program, WASI_SECTION};
use wsnap_tests::examples_dir;
use wsnap_tests::fetch::FetchError;
use wsnap_tests::guests::Run;

/// Why something cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The table has no program of that name.
    #[error("guest-examples/runs.toml has no program {0:?}")]
    Unknown(String),
    /// Some programs could not be measured.
    #[error("{0} programs could not be measured")]
    Failures(usize),
    /// The program is a function to call, not a command.
    #[error("{0} is called with --invoke; only commands are timed")]
    NotACommand(String),
    /// The program did not do what the table says.
    #[error("{name} ended with {actual}, not with exit code {expected}; it said:\n{said}")]
    Ended {
        /// The program.
        name: String,
        /// What it did.
        actual: String,
        /// What it should have done.
        expected: i32,
        /// What it wrote to standard error.
        said: String,
    },
    /// The guest of a benchmark did something else.
    #[error("the guest ended unexpectedly: {0}")]
    Unexpected(String),
    /// The image has no state of the WASI host.
    #[error("an image of {0} has no WASI state")]
    NoWasiState(String),
    /// The program is not there.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The program cannot be compiled, run, stored or resumed.
    #[error(transparent)]
    Wsnap(#[from] wsnap::Error),
    /// The program cannot be rewritten.
    #[error(transparent)]
    Rewrite(#[from] wsnap_instrument::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host state cannot be set up.
    #[error(transparent)]
    Wasi(#[from] WasiError),
    /// The host state in an image cannot be read.
    #[error(transparent)]
    State(#[from] DecodeError),
    /// The host state cannot be restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A file operation failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// A program with a place for what it writes.
pub struct Guest {
    run: Run,
    wasm: Vec<u8>,
    folder: TempDir,
}

/// Attaches the path to an error.
fn at(path: &Path) -> impl FnOnce(io::Error) -> BenchError {
    move |source| BenchError::Io {
        path: path.to_owned(),
        source,
    }
}

/// How long a processor has worked for this thread, which is where a guest runs: unlike the time that passes, it is
/// nearly the same however busy the machine is with others.
pub fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

impl Guest {
    /// Reads the program, which is fetched if it isn't there.
    pub fn new(run: Run) -> Result<Self, BenchError> {
        if run.invoke.is_some() {
            return Err(BenchError::NotACommand(run.name));
        }
        let path = run.module_path()?;
        let bytes = fs::read(&path).map_err(at(&path))?;
        let folder = scratch_folder(None)?;
        let input = folder.path().join("stdin");
        fs::write(&input, &run.stdin).map_err(at(&input))?;
        // Text is read by a program that runs bare; rewriting alone is measured on the binary form.
        let engine = Engine::new(&EngineConfig {
            bare: true,
            ..EngineConfig::default()
        })?;
        let wasm = if bytes.starts_with(b"\0asm") {
            bytes
        } else {
            Program::new(&engine, bytes)?.wasm().to_vec()
        };
        Ok(Self { run, wasm, folder })
    }

    /// The program's name in the table.
    pub fn name(&self) -> &str {
        &self.run.name
    }

    /// The module in binary format.
    pub fn wasm(&self) -> &[u8] {
        &self.wasm
    }

    /// A folder that lasts as long as this value.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Compiles the program, with a code cache if one is named, whose directory is created.
    pub fn compile(&self, bare: bool, cache: Option<PathBuf>) -> Result<Program, BenchError> {
        let engine = Engine::new(&EngineConfig {
            bare,
            cache,
            ..EngineConfig::default()
        })?;
        Ok(Program::new(&engine, self.wasm.clone())?)
    }

    /// A fresh start of the program, compiled in either way.
    pub fn start(&self, program: &Program) -> Result<Instance, BenchError> {
        let scratch = self.scratch();
        if scratch.exists() {
            fs::remove_dir_all(&scratch).map_err(at(&scratch))?;
        }
        fs::create_dir(&scratch).map_err(at(&scratch))?;
        let mut args = vec![self.run.name.clone()];
        args.extend_from_slice(&self.run.args);
        let config = WasiConfig {
            args,
            preopens: self.preopens()?,
            volumes: self.volumes(),
            streams: self.streams()?,
            ..WasiConfig::default()
        };
        Ok(program.start(Wasi::new(config)?, Call::command())?)
    }

    /// A new instance in the state of an image.
    pub fn resume(
        &self,
        program: &Program,
        image: &Arc<StoredImage>,
    ) -> Result<Instance, BenchError> {
        let wasi = self.wasi(image)?;
        Ok(program.resume(image, wasi)?)
    }

    /// The host state for one more instance of an image.
    pub fn wasi(&self, image: &StoredImage) -> Result<Wasi, BenchError> {
        let section = image.manifest().host.get(WASI_SECTION);
        let state = section.ok_or_else(|| BenchError::NoWasiState(self.run.name.clone()))?;
        let grants = Grants {
            preopens: self.preopens()?,
            streams: self.streams()?,
            ..Grants::default()
        };
        Ok(Wasi::restore(&SavedState::decode(state)?, grants)?)
    }

    /// Runs an instance to its end and says how much processor time that took; it must end as the table says.
    pub fn finish(&self, instance: &mut Instance) -> Result<Duration, BenchError> {
        let start = processor_time();
        let outcome = instance.run()?;
        let elapsed = processor_time() - start;
        let code = match outcome {
            Outcome::Returned(_) => Some(0),
            Outcome::Exited(code) => i32::try_from(code).ok(),
            Outcome::Trapped(_) | Outcome::Suspended(_) => None,
        };
        if code == Some(self.run.exit) {
            return Ok(elapsed);
        }
        let said = fs::read_to_string(self.errors()).unwrap_or_default();
        Err(BenchError::Ended {
            name: self.run.name.clone(),
            actual: format!("{outcome:?}"),
            expected: self.run.exit,
            said,
        })
    }

    /// The file that standard error goes to.
    fn errors(&self) -> PathBuf {
        self.folder.path().join("stderr")
    }

    fn scratch(&self) -> PathBuf {
        self.folder.path().join("scratch")
    }

    fn preopens(&self) -> Result<Vec<Preopen>, BenchError> {
        let mut preopens = Vec::new();
        for directory in &self.run.dirs {
            let (host, guest) = directory.split_once("::").unwrap_or((directory, directory));
            preopens.push(Preopen::open(&examples_dir().join(host), guest)?);
        }
        if let Some(guest) = &self.run.scratch {
            preopens.push(Preopen::open(&self.scratch(), guest)?);
        }
        Ok(preopens)
    }

    fn volumes(&self) -> Vec<VolumeGrant> {
        let volume = self.run.volume.iter().map(|guest| VolumeGrant {
            name: "scratch".to_owned(),
            guest_path: guest.clone(),
        });
        volume.collect()
    }

    fn streams(&self) -> Result<StandardStreams, BenchError> {
        let input = self.folder.path().join("stdin");
        let null = Path::new("/dev/null");
        let errors = self.errors();
        let nowhere = || OpenOptions::new().write(true).open(null).map_err(at(null));
        Ok(StandardStreams {
            stdin: Stdio::Descriptor(File::open(&input).map_err(at(&input))?.into()),
            stdout: Stdio::Descriptor(nowhere()?.into()),
            stderr: Stdio::Descriptor(File::create(&errors).map_err(at(&errors))?.into()),
        })
    }
}

/// A folder that is removed in the end, in a given one or among temporary files.
pub fn scratch_folder(parent: Option<&Path>) -> Result<TempDir, BenchError> {
    let folder = match parent {
        Some(parent) => TempDir::with_prefix_in("wsnap-bench", parent),
        None => TempDir::with_prefix("wsnap-bench"),
    };
    folder.map_err(|source| BenchError::Io {
        path: parent.map_or_else(std::env::temp_dir, Path::to_owned),
        source,
    })
}
