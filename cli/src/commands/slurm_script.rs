//! `wsnap slurm-script`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser};

use crate::arguments::Period;
use crate::commands::run::Run;
use crate::failure::Failure;
use crate::output;
use crate::places::Places;
use crate::{Cli, Command};

/// How often images are taken, unless the program's flags say so: nodes also fail without a warning.
const EVERY: &str = "5m";
/// Slurm looks at the time that jobs have left so rarely that its warning can come so much earlier than it was asked for, or
/// later.
const WARNING_SLACK: Duration = Duration::from_secs(60);

/// Print a batch script that keeps a program running under Slurm
///
/// The job survives preemption, the end of its time, and the failure of its node: it goes back into the queue and continues from
/// its newest image, on whichever node. Whatever stands behind `--` is a command line of `wsnap run`, with a name. The store
/// must be on a file system that all nodes share, and so must the program and what it writes.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wsnap slurm-script -- --name sim --output sim.out sim.wasm --steps 1000000 > sim.sbatch\n  wsnap slurm-script --partition low --time 12h --sbatch=--mem=4G -- --name sim --every 10m sim.wasm > sim.sbatch; sbatch sim.sbatch"
)]
pub(crate) struct SlurmScript {
    /// The partition that the job is submitted to [default: Slurm's]
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// How long the job may run at a time, such as 12h: then it goes back into the queue [default: the partition's]
    #[arg(long, value_name = "DURATION")]
    time: Option<Period>,
    /// Another option of sbatch, such as --mem=4G; can be given several times
    #[arg(
        long = "sbatch",
        value_name = "OPTION",
        allow_hyphen_values = true,
        require_equals = true
    )]
    options: Vec<String>,
    /// The flags of `wsnap run`, the program, and its arguments
    #[arg(value_name = "RUN-ARGUMENT", last = true, required = true)]
    run: Vec<String>,
}

impl SlurmScript {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        let script = self.script(places)?;
        output::result(script.trim_end())?;
        Ok(ExitCode::SUCCESS)
    }

    fn script(&self, places: &Places) -> Result<String, Failure> {
        let (run, places_of_run) = self.parse_run(places)?;
        let Some(name) = run.name() else {
            return Err(Failure::new("the program has no name to go on by").hint(
                "give it one behind the two dashes: wsnap slurm-script -- --name NAME MODULE",
            ));
        };
        let grace = run.saving().grace(true).unwrap_or_default();
        let code = run.suspended_exit_code();
        if code == 0 {
            return Err(Failure::new(
                "with --suspended-exit-code 0 Slurm would take a suspended program for one that is complete",
            )
            .hint("leave the flag out, or choose a code that the program does not use"));
        }
        let warning = grace + WARNING_SLACK;
        let store = places_of_run.store_directory()?;
        Ok(format!(
            r#"#!/bin/sh
{directives}
#
# Runs a program that loses nothing when its node is taken away: it goes back into the queue and continues from its newest image.
# Submit this with `sbatch`. All nodes must share the store, {store},
# and the working directory.

# Of an early end only what srun has started is warned. Within {grace} the program is then stored, and srun exits with {code}.
srun --ntasks=1 {command}
code=$?
if [ "$code" -ne {code} ]; then
    exit "$code"
fi

# Exit code 0 would mean that the job is complete. The job leaves now, so that whoever needs the node has it early. Where users
# may not requeue jobs, the site's RequeueExit={code} does it. A job that was cancelled is not to come back.
case $(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) in
RUNNING | PREEMPTED) scontrol requeue "$SLURM_JOB_ID" ;;
esac
exit {code}
"#,
            directives = self.directives(name, warning)?,
            store = printable(&store.display().to_string())?,
            grace = output::duration(grace),
            command = shell(&self.command(&run, places))?,
        ))
    }

    /// The flags behind `--`, as `run` understands them, and the places that it would use.
    fn parse_run(&self, places: &Places) -> Result<(Run, Places), Failure> {
        match Cli::try_parse_from(self.words(places, &[])) {
            Ok(Cli {
                places,
                command: Command::Run(run),
            }) => Ok((run, places)),
            // No other command begins with `run`; help and wrong usage end the process.
            Ok(_) => Err(Failure::new(
                "what stands behind -- is no command line of run",
            )),
            Err(error) => error.exit(),
        }
    }

    /// What is said to Slurm. The options come last, so that they are what counts.
    fn directives(&self, name: &str, warning: Duration) -> Result<String, Failure> {
        let mut options = vec![
            format!("--job-name={name}"),
            "--ntasks=1".to_owned(),
            "--requeue".to_owned(),
            "--open-mode=append".to_owned(),
            format!("--signal=TERM@{}", warning.as_secs()),
        ];
        if let Some(partition) = &self.partition {
            options.push(format!("--partition={partition}"));
        }
        if let Some(Period(time)) = self.time {
            if time < 2 * warning {
                return Err(Failure::new(format!(
                    "with --time {} the program would do little but be stored: the warning comes {} before the end",
                    output::duration(time),
                    output::duration(warning)
                ))
                .hint(format!("give it at least {}", output::duration(2 * warning))));
            }
            options.push(format!("--time={}", slurm_time(time)));
        }
        options.extend(self.options.iter().cloned());
        let lines = options.iter().map(|option| {
            let option = printable(option)?;
            let quoted = option
                .split_once('=')
                .map(|(flag, value)| (flag, quoted(value)));
            Ok(match quoted {
                Some((flag, value)) => format!("#SBATCH {flag}={value}"),
                None => format!("#SBATCH {option}"),
            })
        });
        Ok(lines.collect::<Result<Vec<_>, Failure>>()?.join("\n"))
    }

    /// The command line that runs the program, with what `--continue` needs.
    fn command(&self, run: &Run, places: &Places) -> Vec<String> {
        let mut added = Vec::new();
        if !run.continues() {
            added.push("--continue");
        }
        if run.saving().every.is_none() {
            added.extend(["--every", EVERY]);
        }
        self.words(places, &added)
    }

    fn words(&self, places: &Places, added: &[&str]) -> Vec<String> {
        let mut words = vec!["wsnap".to_owned()];
        words.extend(places.flags());
        words.push("run".to_owned());
        words.extend(added.iter().map(|word| (*word).to_owned()));
        words.extend_from_slice(&self.run);
        words
    }
}

/// Slurm's form of a length of time: days-hours:minutes:seconds, rounded up.
fn slurm_time(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    format!("{}-{:02}:{minutes:02}:{seconds:02}", hours / 24, hours % 24)
}

/// A value as it is understood in a line of `#SBATCH`: blanks part options, and `#` begins a comment.
fn quoted(value: &str) -> String {
    if value.contains([' ', '\t', '#', '"', '\'', '\\']) {
        let escaped = value.replace('\\', r"\\").replace('"', "\\\"");
        format!("\"{escaped}\"")
    } else {
        value.to_owned()
    }
}

/// Refuses what would end the line that it is to be part of.
fn printable(text: &str) -> Result<&str, Failure> {
    if text.contains(char::is_control) {
        return Err(Failure::new(format!(
            "{text:?} cannot be part of a script: it has control characters"
        )));
    }
    Ok(text)
}

/// The words as a shell reads them.
fn shell(words: &[String]) -> Result<String, Failure> {
    shlex::try_join(words.iter().map(String::as_str))
        .map_err(|error| Failure::new(format!("the command line cannot be written down: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_slurm_reads_them() {
        let written = |seconds| slurm_time(Duration::from_secs(seconds));
        assert_eq!(written(59), "0-00:00:59");
        assert_eq!(written(12 * 3600), "0-12:00:00");
        assert_eq!(written(2 * 86_400 + 3 * 3600 + 4 * 60 + 5), "2-03:04:05");
        assert_eq!(slurm_time(Duration::from_millis(1001)), "0-00:00:02");
    }

    #[test]
    fn values_with_blanks_are_quoted() {
        assert_eq!(quoted("4G"), "4G");
        assert_eq!(quoted("two words"), "\"two words\"");
        assert_eq!(quoted(r#"a"b\"#), r#""a\"b\\""#);
    }
}
