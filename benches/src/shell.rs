//! Commands as a shell starts them, timed from outside: from before the process is made to its first line of output and to
//! its end.

use crate::error::{BenchError, at};
use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a command took.
#[derive(Clone, Debug)]
pub struct Timed {
    /// Until its first line of output was here; none if it printed nothing.
    pub first_line: Option<Duration>,
    /// Until it had ended.
    pub end: Duration,
    /// What it printed.
    pub printed: String,
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
}

/// Runs a command with this standard input to its end. What it says on standard error is thrown away.
pub fn run(command: &mut Command, input: &str) -> Result<Timed, BenchError> {
    let program = PathBuf::from(command.get_program());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn().map_err(at(&program))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A command that reads nothing may have ended.
        let _ = pipe.write_all(input.as_bytes());
    }
    let (mut printed, mut first_line) = (String::new(), None);
    if let Some(pipe) = child.stdout.take() {
        let mut reader = BufReader::new(pipe);
        if reader.read_line(&mut printed).map_err(at(&program))? > 0 {
            first_line = Some(start.elapsed());
        }
        reader.read_to_string(&mut printed).map_err(at(&program))?;
    }
    let status = child.wait().map_err(at(&program))?;
    Ok(Timed {
        first_line,
        end: start.elapsed(),
        printed,
        code: status.code(),
    })
}

/// Runs a command that must end with one of these exit codes.
pub fn run_to(command: &mut Command, input: &str, codes: &[i32]) -> Result<Timed, BenchError> {
    let timed = run(command, input)?;
    if timed.code.is_some_and(|code| codes.contains(&code)) {
        return Ok(timed);
    }
    Err(BenchError::Unexpected(format!(
        "{command:?} ended with {:?} and printed {:?}",
        timed.code, timed.printed
    )))
}

/// The command `wsnap`, which is built beside this program, with a store and a code cache below `folder`.
pub fn wsnap(folder: &Path) -> Result<Command, BenchError> {
    let own = env::current_exe().map_err(at(Path::new("this program")))?;
    let path = own.with_file_name("wsnap");
    if !path.exists() {
        return Err(BenchError::NoCommand(path));
    }
    let mut command = Command::new(path);
    command
        .env("WSNAP_STORE", folder.join("store"))
        .env("WSNAP_CACHE", folder.join("cache"));
    Ok(command)
}

/// The command `wasmtime`, if it is installed, with a code cache below `folder`.
pub fn wasmtime(folder: &Path) -> Result<Option<Command>, BenchError> {
    let path = env::var_os("WASMTIME").map_or_else(|| PathBuf::from("wasmtime"), PathBuf::from);
    let probe = Command::new(&path)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if probe.is_err() {
        return Ok(None);
    }
    let config = folder.join("wasmtime.toml");
    let text = format!(
        "[cache]\ndirectory = {:?}\n",
        folder.join("wasmtime-cache").display().to_string()
    );
    std::fs::write(&config, text).map_err(at(&config))?;
    let mut command = Command::new(path);
    command
        .arg("run")
        .arg("-C")
        .arg(format!("cache-config={}", config.display()));
    Ok(Some(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_here_before_the_end() {
        let mut command = Command::new("sh");
        command.args(["-c", "read line; echo $line; sleep 0.05; echo more; exit 3"]);
        let timed = run_to(&mut command, "hello\n", &[3]).expect("a shell");
        assert_eq!(timed.printed, "hello\nmore\n");
        assert!(timed.first_line.expect("it printed") < timed.end);
        let refused = run_to(&mut Command::new("true"), "", &[1]).map(drop);
        assert!(
            matches!(refused, Err(BenchError::Unexpected(_))),
            "{refused:?}"
        );
    }
}
