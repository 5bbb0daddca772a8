//! The machine, and the versions of everything that figures depend on.

use crate::asyncify;
use crate::table::built_dir;
use serde::Serialize;
use std::fmt;
use std::fs;
use std::thread;

/// The machine.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// The processor's name; empty where the system does not tell.
    pub processor: String,
    /// How many threads run at once.
    pub threads: usize,
    /// The kernel's release; empty where the system does not tell.
    pub kernel: String,
    /// The version of wsnap.
    pub wsnap: &'static str,
}

impl Machine {
    /// This machine.
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpus = read("/proc/cpuinfo");
        let model = cpus
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        Self {
            processor: model.unwrap_or_default().to_owned(),
            threads: thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            wsnap: env!("CARGO_PKG_VERSION"),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            processor,
            threads,
            kernel,
            wsnap,
        } = self;
        write!(
            to,
            "wsnap {wsnap}; {processor}, {threads} threads; Linux {kernel}"
        )
    }
}

/// The versions of what runs, transforms and has built the programs.
#[derive(Debug, Serialize)]
pub struct Tools {
    wasmtime: String,
    wasmi: String,
    /// None where it is not installed.
    binaryen: Option<String>,
    /// Those that built the programs of `benches/guests`; none if nothing was built.
    compilers: Vec<String>,
}

impl Tools {
    /// What there is now.
    pub fn these() -> Self {
        let compilers = fs::read_to_string(built_dir().join("tools.txt")).unwrap_or_default();
        Self {
            wasmtime: locked("wasmtime"),
            wasmi: locked("wasmi"),
            binaryen: asyncify::version().ok(),
            compilers: compilers.lines().map(str::to_owned).collect(),
        }
    }
}

impl fmt::Display for Tools {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "wasmtime {}; wasmi {}", self.wasmtime, self.wasmi)?;
        if let Some(binaryen) = &self.binaryen {
            write!(to, "; {binaryen}")?;
        }
        for compiler in &self.compilers {
            write!(to, "; {compiler}")?;
        }
        Ok(())
    }
}

/// The version of a package that is compiled into this program.
fn locked(package: &str) -> String {
    let lock = include_str!("../../Cargo.lock");
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    let version = lines
        .nth(1)
        .and_then(|line| line.strip_prefix("version = "));
    version.unwrap_or_default().trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::locked;

    #[test]
    fn the_versions_of_both_engines_are_known() {
        for package in ["wasmtime", "wasmi"] {
            let version = locked(package);
            assert!(
                version.starts_with(|first: char| first.is_ascii_digit()),
                "{version:?}"
            );
        }
    }
}
