//! A program of the table, started and resumed in this process, with its output going to files that are looked at when it
//! has ended.

use crate::error::{BenchError, at};
use crate::table::Row;
use rustix::time::{ClockId, clock_gettime};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use wsnap::snapshots::StoredImage;
use wsnap::wasi::{Grants, Preopen, SavedState, StandardStreams, Stdio, Wasi, WasiConfig};
use wsnap::{Call, Engine, EngineConfig, Instance, Outcome, Program, WASI_SECTION};

/// A program with a place for what it writes.
pub struct Guest {
    row: Row,
    wasm: Vec<u8>,
    folder: TempDir,
}

/// How a program ended.
pub enum End {
    /// By itself, with this exit code.
    Exited(i32),
    /// In some other way.
    Otherwise(String),
}

impl fmt::Display for End {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(to, "exit code {code}"),
            Self::Otherwise(how) => to.write_str(how),
        }
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
    pub fn new(row: Row) -> Result<Self, BenchError> {
        let path = row.module_path()?;
        let bytes = fs::read(&path).map_err(at(&path))?;
        let folder = scratch_folder(None)?;
        let input = folder.path().join("stdin");
        fs::write(&input, &row.stdin).map_err(at(&input))?;
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
        Ok(Self { row, wasm, folder })
    }

    /// The program's name in the table.
    pub fn name(&self) -> &str {
        &self.row.name
    }

    /// What it does.
    pub fn about(&self) -> &str {
        &self.row.about
    }

    /// The module in binary format.
    pub fn wasm(&self) -> &[u8] {
        &self.wasm
    }

    /// A folder that lasts as long as this value.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Compiles the program as `wsnap run` does, with a code cache if one is named, whose directory is created.
    pub fn compile(&self, cache: Option<PathBuf>) -> Result<Program, BenchError> {
        let engine = Engine::new(&EngineConfig {
            cache,
            ..EngineConfig::default()
        })?;
        Ok(Program::new(&engine, self.wasm.clone())?)
    }

    /// A fresh start of the program under wsnap.
    pub fn start(&self, program: &Program) -> Result<Instance, BenchError> {
        Ok(program.start(self.fresh_wasi()?, Call::command())?)
    }

    /// The host state for a fresh start, for which what earlier ones left is removed.
    pub fn fresh_wasi(&self) -> Result<Wasi, BenchError> {
        let scratch = self.scratch();
        if scratch.exists() {
            fs::remove_dir_all(&scratch).map_err(at(&scratch))?;
        }
        fs::create_dir(&scratch).map_err(at(&scratch))?;
        for path in [self.printed(), self.errors()] {
            File::create(&path).map_err(at(&path))?;
        }
        let mut args = vec![self.row.name.clone()];
        args.extend_from_slice(&self.row.args);
        let config = WasiConfig {
            args,
            preopens: self.preopens()?,
            streams: self.streams()?,
            ..WasiConfig::default()
        };
        Ok(Wasi::new(config)?)
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
        self.wasi_with(image, self.streams()?)
    }

    /// The same with other standard streams.
    pub fn wasi_with(
        &self,
        image: &StoredImage,
        streams: StandardStreams,
    ) -> Result<Wasi, BenchError> {
        let section = image.manifest().host.get(WASI_SECTION);
        let state = section.ok_or_else(|| BenchError::NoWasiState(self.row.name.clone()))?;
        let grants = Grants {
            preopens: self.preopens()?,
            streams,
            ..Grants::default()
        };
        Ok(Wasi::restore(&SavedState::decode(state)?, grants)?)
    }

    /// Runs an instance to its end and says how much processor time that took; it must end as the table says.
    pub fn finish(&self, instance: &mut Instance) -> Result<Duration, BenchError> {
        let start = processor_time();
        let outcome = instance.run()?;
        let elapsed = processor_time() - start;
        self.check(&match outcome {
            Outcome::Returned(_) => End::Exited(0),
            Outcome::Exited(code) => End::Exited(code.cast_signed()),
            Outcome::Trapped(_) | Outcome::Suspended(_) => End::Otherwise(format!("{outcome:?}")),
        })?;
        Ok(elapsed)
    }

    /// Whether the program did since its last fresh start what the table says.
    pub fn check(&self, end: &End) -> Result<(), BenchError> {
        if !matches!(end, End::Exited(code) if *code == self.row.exit) {
            return Err(BenchError::Ended {
                actual: end.to_string(),
                expected: self.row.exit,
                said: fs::read_to_string(self.errors()).unwrap_or_default(),
            });
        }
        let printed = fs::read(self.printed()).map_err(at(&self.printed()))?;
        let actual = self.output_hash(&printed)?;
        if actual == self.row.output {
            return Ok(());
        }
        Err(BenchError::Output {
            actual,
            expected: self.row.output.clone(),
            beginning: String::from_utf8_lossy(&printed[..printed.len().min(1000)]).into_owned(),
        })
    }

    /// The hash of what was printed, and of names and content of the files that were left.
    fn output_hash(&self, printed: &[u8]) -> Result<String, BenchError> {
        /// More than enough to notice an error; nobody forges anything here.
        const DIGITS: usize = 16;
        let mut hasher = blake3::Hasher::new();
        hasher.update(printed);
        let scratch = self.scratch();
        let entries = fs::read_dir(&scratch).map_err(at(&scratch))?;
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(at(&scratch))?.path());
        }
        paths.sort();
        for path in paths {
            hasher.update(path.file_name().unwrap_or_default().as_encoded_bytes());
            hasher.update(&fs::read(&path).map_err(at(&path))?);
        }
        Ok(hasher.finalize().to_hex()[..DIGITS].to_owned())
    }

    /// The file that standard output goes to.
    fn printed(&self) -> PathBuf {
        self.folder.path().join("stdout")
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
        for directory in &self.row.dirs {
            let (host, guest) = directory.split_once("::").unwrap_or((directory, directory));
            preopens.push(Preopen::open(&self.row.folder.join(host), guest)?);
        }
        if let Some(guest) = &self.row.scratch {
            preopens.push(Preopen::open(&self.scratch(), guest)?);
        }
        Ok(preopens)
    }

    fn streams(&self) -> Result<StandardStreams, BenchError> {
        let input = self.folder.path().join("stdin");
        // A resumed program goes on behind what it printed before.
        let append = |path: &Path| OpenOptions::new().append(true).open(path).map_err(at(path));
        Ok(StandardStreams {
            stdin: Stdio::Descriptor(File::open(&input).map_err(at(&input))?.into()),
            stdout: Stdio::Descriptor(append(&self.printed())?.into()),
            stderr: Stdio::Descriptor(append(&self.errors())?.into()),
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
