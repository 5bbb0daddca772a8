//! Figures as tables for people and as JSON.

use crate::build::{BuildFigures, REPETITIONS};
use crate::machine::{Machine, Tools};
use crate::markdown::{number, ratio, table};
use crate::rounds::RunTimes;
use crate::statistics::{Percentiles, Spread, geometric_mean};
use crate::stop::StopFigures;
use crate::ways::Way;
use comfy_table::Table;
use serde::Serialize;
use std::fmt;

/// Programs that run for less than this are in the tables, but too short to be part of the means.
const MEAN_MS_MIN: f64 = 20.0;

/// What is compared with what.
const COMPARISONS: [(Way, Way); 6] = [
    (Way::Epochs, Way::Bare),
    (Way::Wsnap, Way::Bare),
    (Way::Resumed, Way::Bare),
    (Way::Resumed, Way::Wsnap),
    (Way::Asyncify, Way::Bare),
    (Way::Wasmi, Way::Bare),
];

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// On what.
    pub machine: Machine,
    /// With what.
    pub tools: Tools,
    /// How often each program ran each way.
    pub rounds: u32,
    /// By program.
    pub programs: Vec<Program>,
}

/// One program's figures.
#[derive(Debug, Serialize)]
pub struct Program {
    /// Its name in the table of programs.
    pub name: String,
    /// What it does.
    pub about: String,
    /// Running.
    pub run: RunTimes,
    /// Rewriting and compiling.
    pub build: BuildFigures,
    /// Stopping and resuming.
    pub stop: StopFigures,
}

/// How one way compares with another, over all programs that run for long enough.
pub struct Summary<'a> {
    /// The median of the ratios of each program.
    pub ratios: Vec<(&'a str, f64)>,
}

impl<'a> Summary<'a> {
    /// Compares `way` with `base`.
    pub fn of(programs: &'a [Program], way: Way, base: Way) -> Self {
        let long_enough = programs.iter().filter(|program| {
            let bare = program.run.ms(Way::Bare);
            bare.is_some_and(|bare| bare.median >= MEAN_MS_MIN)
        });
        let ratios = long_enough.filter_map(|program| {
            Some((program.name.as_str(), program.run.ratio(way, base)?.median))
        });
        Self {
            ratios: ratios.collect(),
        }
    }

    /// The mean over all programs.
    pub fn mean(&self) -> f64 {
        geometric_mean(self.ratios.iter().map(|(_, ratio)| *ratio))
    }

    /// The program with the highest ratio.
    pub fn worst(&self) -> Option<(&'a str, f64)> {
        let ratios = self.ratios.iter().copied();
        ratios.max_by(|(_, one), (_, other)| one.total_cmp(other))
    }
}

impl Report {
    fn summary(&self) -> Table {
        let mut table = table(&["run time", "programs", "geometric mean", "worst", "of"]);
        for (way, base) in COMPARISONS {
            let summary = Summary::of(&self.programs, way, base);
            if let Some((worst, most)) = summary.worst() {
                table.add_row([
                    format!("{way} / {base}"),
                    summary.ratios.len().to_string(),
                    format!("{:.3}", summary.mean()),
                    ratio(most),
                    worst.to_owned(),
                ]);
            }
        }
        table
    }

    fn runs(&self) -> Table {
        let names = COMPARISONS.map(|(way, base)| match base {
            Way::Bare => way.to_string(),
            _ => format!("{way} / {base}"),
        });
        let names = names.iter().map(String::as_str);
        let header: Vec<&str> = ["program", "bare ms"].into_iter().chain(names).collect();
        let mut table = table(&header);
        for Program { name, run, .. } in &self.programs {
            let bare = run.ms(Way::Bare).unwrap_or_default();
            let ratios = COMPARISONS.map(|(way, base)| spread(run.ratio(way, base)));
            let cells = [name.clone(), number(bare.median)].into_iter();
            table.add_row(cells.chain(ratios));
        }
        table
    }

    /// Which ways do without which programs, and why.
    fn skipped(&self) -> impl Iterator<Item = (Way, &str, &str)> {
        self.programs.iter().flat_map(|program| {
            let skipped = program.run.skipped();
            skipped.map(|(way, why)| (way, program.name.as_str(), why))
        })
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
            "ratio",
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
                number(build.compile_bare_ms.median / 1e3),
                number(build.compile_wsnap_ms.median / 1e3),
                spread(Some(build.compile_ratio)),
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
            if stop.stop_ms.is_empty() {
                continue;
            }
            let median = |figures: &[f64]| number(Spread::of(figures.iter().copied()).median);
            let both = |figures: &[f64]| {
                let spread = Spread::of(figures.iter().copied());
                [number(spread.median), number(spread.max)]
            };
            let mut row = vec![name.clone()];
            row.extend(both(&stop.stop_ms));
            row.extend([median(&stop.frames), median(&stop.store_ms)]);
            row.extend(both(&stop.resume_first_ms));
            row.extend(both(&stop.resume_again_ms));
            table.add_row(row);
        }
        table
    }
}

/// Median, least and most, of which the last two are the same for a single figure; a dash for none.
fn spread(spread: Option<Spread>) -> String {
    match spread {
        None => "–".to_owned(),
        Some(one) if one.min == one.max => ratio(one.median),
        Some(Spread { median, min, max }) => format!("{median:.2} ({min:.2} to {max:.2})"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(to, "{}; {}\n", self.machine, self.tools)?;
        writeln!(
            to,
            "Run time over all programs that take {MEAN_MS_MIN} ms or more, {} rounds:\n\n{}\n",
            self.rounds,
            self.summary()
        )?;
        writeln!(
            to,
            "Run time by program, relative to bare unless it says otherwise: median (least to most)\n\n{}\n",
            self.runs()
        )?;
        for (way, program, why) in self.skipped() {
            let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
            writeln!(to, "- {way} does without {program}: {why}")?;
        }
        let builds = || self.programs.iter().map(|program| &program.build);
        let ratios = builds().map(|build| build.compile_ratio.median);
        let bare: f64 = builds().map(|build| build.compile_bare_ms.median).sum();
        let with_wsnap: f64 = builds().map(|build| build.compile_wsnap_ms.median).sum();
        writeln!(
            to,
            "\nRewriting and compiling, {REPETITIONS} times; against compiling bare {:.3} in the geometric mean, {:.3} all programs together\n\n{}\n",
            geometric_mean(ratios),
            with_wsnap / bare,
            self.builds()
        )?;
        let all: Vec<f64> = self
            .programs
            .iter()
            .flat_map(|program| program.stop.stop_ms.iter().copied())
            .collect();
        if all.is_empty() {
            return Ok(());
        }
        let Percentiles { median, p99 } = Percentiles::of(all.iter().copied());
        writeln!(
            to,
            "Stopping and resuming; from request to suspended over all {} stops: median {} ms, 99th percentile {} ms\n\n{}",
            all.len(),
            number(median),
            number(p99),
            self.stops()
        )
    }
}

#[cfg(test)]
pub mod tests {
    use super::{Program, Summary, spread};
    use crate::rounds::tests::run_times;
    use crate::statistics::Spread;
    use crate::ways::Way;

    /// A program that takes so many milliseconds bare and so many under wsnap.
    pub fn program(name: &str, bare: f64, wsnap: f64) -> Program {
        Program {
            name: name.to_owned(),
            about: String::new(),
            run: run_times(&[(Way::Bare, &[Some(bare)]), (Way::Wsnap, &[Some(wsnap)])]),
            build: Default::default(),
            stop: Default::default(),
        }
    }

    #[test]
    fn short_programs_are_no_part_of_means() {
        let programs = [
            program("one", 100.0, 200.0),
            program("other", 100.0, 50.0),
            program("short", 1.0, 10.0),
        ];
        let summary = Summary::of(&programs, Way::Wsnap, Way::Bare);
        assert_eq!(summary.mean(), 1.0);
        assert_eq!(summary.worst(), Some(("one", 2.0)));
        assert_eq!(Summary::of(&programs, Way::Wasmi, Way::Bare).worst(), None);
    }

    #[test]
    fn a_single_figure_has_no_spread() {
        assert_eq!(spread(None), "–");
        assert_eq!(spread(Some(Spread::of([1.5]))), "1.50");
        assert_eq!(
            spread(Some(Spread::of([1.5, 1.0, 3.0]))),
            "1.50 (1.00 to 3.00)"
        );
    }
}
