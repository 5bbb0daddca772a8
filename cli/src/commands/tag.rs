//! `wsnap tag`.

use std::process::ExitCode;

use clap::Args;
use wsnap::snapshots::StoreError;

use crate::failure::Failure;
use crate::places::Places;

/// Give an image a tag, move a tag to another image, or delete a tag
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wsnap tag 3f2a9c01 before-upgrade\n  wsnap tag --delete before-upgrade"
)]
pub(crate) struct Tag {
    /// Delete the tag; the image stays
    #[arg(long, value_name = "TAG", conflicts_with_all = ["reference", "tag"])]
    delete: Option<String>,
    /// The image: an id, the first digits of one, a tag, or a program's name (its latest image)
    #[arg(value_name = "REF", required_unless_present = "delete")]
    reference: Option<String>,
    /// The tag: letters, digits, '.', '_' and '-'
    #[arg(value_name = "TAG", required_unless_present = "delete")]
    tag: Option<String>,
}

impl Tag {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        if let Some(tag) = &self.delete {
            delete(places, tag)?;
        }
        if let (Some(reference), Some(tag)) = (&self.reference, &self.tag) {
            let (store, id) = places.resolve(reference)?;
            store.set_tag(tag, id)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn delete(places: &Places, tag: &str) -> Result<(), Failure> {
    let removed = match places.find_store()? {
        Some(store) => store.remove_tag(tag),
        None => Err(StoreError::NotFound {
            reference: tag.to_owned(),
            store: places.store_directory()?,
        }),
    };
    removed.map_err(|error| match error {
        StoreError::NotFound { .. } => Failure::new(format!("there is no tag {tag:?}"))
            .hint("`wsnap ls` shows the tags of all images"),
        error => error.into(),
    })
}
