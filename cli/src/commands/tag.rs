//! `wsnap tag`.

use std::process::ExitCode;

use clap::Args;

use crate::failure::Failure;
use crate::places::Places;

/// Give an image a tag, or move a tag to another image
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wsnap tag 3f2a9c01 before-upgrade")]
pub(crate) struct Tag {
    /// The image: an id, the first digits of one, a tag, or a program's name (its latest image)
    #[arg(value_name = "REF")]
    reference: String,
    /// The tag: letters, digits, '.', '_' and '-'
    #[arg(value_name = "TAG")]
    tag: String,
}

impl Tag {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        let (store, id) = places.resolve(&self.reference)?;
        store.set_tag(&self.tag, id)?;
        Ok(ExitCode::SUCCESS)
    }
}
