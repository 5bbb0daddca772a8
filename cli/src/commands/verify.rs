//! `wsnap verify`.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use wsnap::snapshots::{ImageId, Store, StoreError};

use crate::failure::Failure;
use crate::output;
use crate::places::Places;

/// Check that images are intact
///
/// Reads every byte of them and of their modules. Exits with 1 when something is damaged or missing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wsnap verify\n  wsnap verify sim")]
pub(crate) struct Verify {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// The image: an id, the first digits of one, a tag, or a program's name [default: all]
    #[arg(value_name = "REF")]
    reference: Option<String>,
}

#[derive(Serialize)]
struct Checked {
    id: String,
    intact: bool,
    /// What is wrong.
    damage: Option<String>,
}

impl Verify {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        let mut checked = Vec::new();
        if let Some((store, ids)) = self.images(places)? {
            for id in ids {
                let result = check(&store, id);
                if !self.json {
                    print(&result)?;
                }
                checked.push(result);
            }
        }
        if self.json {
            output::json_result(&checked)?;
        }
        let damaged = checked.iter().filter(|checked| !checked.intact).count();
        if damaged == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        let all = checked.len();
        Err(Failure::new(format!(
            "{damaged} of {all} images cannot be resumed"
        )))
    }

    fn images(&self, places: &Places) -> Result<Option<(Store, Vec<ImageId>)>, Failure> {
        if let Some(reference) = &self.reference {
            let (store, id) = places.resolve(reference)?;
            return Ok(Some((store, vec![id])));
        }
        let Some(store) = places.find_store()? else {
            return Ok(None);
        };
        let entries = store.images()?;
        Ok(Some((
            store,
            entries.iter().map(|entry| entry.id).collect(),
        )))
    }
}

fn check(store: &Store, id: ImageId) -> Checked {
    let _progress = output::progress(format!("verifying {} …", output::short_id(id)));
    let damage = find_damage(store, id).err();
    Checked {
        id: id.to_string(),
        intact: damage.is_none(),
        damage: damage.map(|error| Failure::from(error).message().to_owned()),
    }
}

fn find_damage(store: &Store, id: ImageId) -> Result<(), StoreError> {
    let image = store.load(id)?;
    image.verify()?;
    store.module(image.manifest().module)?;
    Ok(())
}

fn print(checked: &Checked) -> Result<(), Failure> {
    match &checked.damage {
        None => output::result(format_args!("{} intact", checked.id)),
        Some(damage) => output::result(format_args!("{} damaged: {damage}", checked.id)),
    }
}
