//! Figures as tables for people and as JSON.

use crate::build::BuildFigures;
use crate::run::RunTimes;
use crate::statistics::{Spread, geometric_mean};
use crate::stop::StopFigures;
use comfy_table::{CellAlignment, ColumnConstraint, Table};
use serde::Serialize;
use std::fmt;
use std::fs;
use std::thread;

/// Programs that run for less than this are in the tables, but too short to be part of the mean.
const MEAN_MS_MIN: f64 = 20.0;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// On what.
    pub machine: Machine,
    /// By program.
    pub programs: Vec<Program>,
}

/// The machine and the versions.
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

/// One program's figures.
#[derive(Debug, Serialize)]
pub struct Program {
    /// Its name in the table of runs.
    pub name: String,
    /// Rewriting and compiling.
    pub build: BuildFigures,
    /// Running.
    pub run: RunTimes,
    /// Stopping and resuming.
    pub stop: StopFigures,
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

impl Report {
    /// All figures as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("figures are plain structures")
    }

    fn long_enough(&self) -> impl Iterator<Item = &Program> {
        self.programs
            .iter()
            .filter(|program| program.run.bare_ms.median >= MEAN_MS_MIN)
    }

    fn runs(&self) -> Table {
        let mut table = table(&[
            "program",
            "bare ms",
            "wsnap ms",
            "ratio",
            "least",
            "most",
            "after resume",
        ]);
        for Program {
            name, run, stop, ..
        } in &self.programs
        {
            let cells = [
                number(run.bare_ms.median),
                number(run.wsnap_ms.median),
                ratio(run.ratio.median),
            ]
            .into_iter();
            let rest = [
                ratio(run.ratio.min),
                ratio(run.ratio.max),
                ratio(stop.after_resume_ratio.median),
            ];
            table.add_row([name.clone()].into_iter().chain(cells).chain(rest));
        }
        table
    }

    fn builds(&self) -> Table {
        let header = [
            "program",
            "module MB",
            "code grows",
            "parse ms",
            "rewrite ms",
            "compile bare s",
            "with wsnap s",
            "cached ms",
        ];
        let mut table = table(&header);
        for Program { name, build, .. } in &self.programs {
            table.add_row([
                name.clone(),
                number(build.module_bytes as f64 / 1e6),
                ratio(build.code_bytes[1] as f64 / build.code_bytes[0].max(1) as f64),
                number(build.parse_ms.median),
                number(build.rewrite_ms.median),
                number(build.compile_bare_ms / 1e3),
                number(build.compile_wsnap_ms / 1e3),
                number(build.cached_ms.median),
            ]);
        }
        table
    }

    fn stops(&self) -> Table {
        let header = [
            "program",
            "stop ms",
            "most",
            "frames",
            "store ms",
            "first resume ms",
            "most",
            "further resumes ms",
            "most",
        ];
        let mut table = table(&header);
        for Program { name, stop, .. } in &self.programs {
            let both = |spread: &Spread| [number(spread.median), number(spread.max)];
            let mut row = vec![name.clone()];
            row.extend(both(&stop.stop_ms));
            row.extend([number(stop.frames.median), number(stop.store_ms.median)]);
            row.extend(both(&stop.resume_first_ms));
            row.extend(both(&stop.resume_again_ms));
            table.add_row(row);
        }
        table
    }
}

impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(to, "{}\n", self.machine)?;
        writeln!(to, "Run time:\n\n{}\n", self.runs())?;
        let mean = geometric_mean(self.long_enough().map(|program| program.run.ratio.median));
        writeln!(
            to,
            "Geometric mean of programs that run for {MEAN_MS_MIN} ms or more: {mean:.3}\n"
        )?;
        writeln!(to, "Rewriting and compiling:\n\n{}\n", self.builds())?;
        write!(to, "Stopping and resuming:\n\n{}", self.stops())
    }
}

/// A table as Markdown knows it, numbers to the right.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(header.iter().copied());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
}

fn ratio(value: f64) -> String {
    format!("{value:.2}")
}

/// Three significant digits.
pub fn number(value: f64) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else if value >= 1.0 {
        2
    } else {
        3
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(
            [123.4, 12.34, 1.234, 0.1234].map(number),
            ["123", "12.3", "1.23", "0.123"]
        );
    }
}
