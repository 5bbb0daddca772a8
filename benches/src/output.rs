//! Where figures go: to standard output, and to a folder for whoever keeps them.

use crate::error::{BenchError, at};
use serde::Serialize;
use std::fs;
use std::path::PathBuf;

/// What every command takes.
#[derive(Debug, clap::Args)]
pub struct Output {
    /// Write table, plots and raw figures into this folder, too
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print the raw figures as JSON, not the table
    #[arg(long)]
    pub json: bool,
}

impl Output {
    /// Prints the table or the raw figures, and writes `NAME.md`, `NAME.json` and the plots, each of which has a file name.
    pub fn publish(
        &self,
        name: &str,
        figures: &impl Serialize,
        text: &str,
        plots: &[(&str, String)],
    ) -> Result<(), BenchError> {
        let json = serde_json::to_string_pretty(figures).expect("figures are plain structures");
        if let Some(folder) = &self.out {
            fs::create_dir_all(folder).map_err(at(folder))?;
            let write = |name: &str, content: &str| {
                let path = folder.join(name);
                fs::write(&path, content).map_err(at(&path))
            };
            write(&format!("{name}.md"), &format!("{text}\n"))?;
            write(&format!("{name}.json"), &json)?;
            for (name, plot) in plots {
                write(name, plot)?;
            }
        }
        println!("{}", if self.json { &json } else { text });
        Ok(())
    }
}
