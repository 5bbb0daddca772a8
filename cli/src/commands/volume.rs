//! `wsnap volume`: the files that programs keep inside their images, from outside.

mod get;
mod ls;
mod put;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use wsnap::ImageVolumes;
use wsnap::snapshots::{ImageId, Store};
use wsnap::wasi::Volume;

use crate::arguments::VolumePath;
use crate::failure::Failure;
use crate::output;
use crate::places::Places;

/// List, read and write the files in an image's volumes
///
/// A volume is a file system that is part of a program's image: `wsnap run --volume NAME::GUEST` gives a program one. Writing
/// makes another image, since images never change.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wsnap volume ls sim\n  wsnap volume ls sim data:results\n  wsnap volume get sim data:results/1.csv 1.csv\n  wsnap volume put sim parameters.json data:in/parameters.json"
)]
pub(crate) struct VolumeCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Ls(ls::Ls),
    Get(get::Get),
    Put(put::Put),
}

impl VolumeCommand {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        match self.action {
            Action::Ls(action) => action.execute(places),
            Action::Get(action) => action.execute(places),
            Action::Put(action) => action.execute(places),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Opens the volumes of the image that `reference` means, after making sure that its bytes are right.
fn open(places: &Places, reference: &str) -> Result<(Store, ImageId, ImageVolumes), Failure> {
    let (store, id) = places.resolve(reference)?;
    let image = Arc::new(store.load(id)?);
    let progress = output::progress("verifying the image …".to_owned());
    store.verify_unverified(&image, &|_| ())?;
    drop(progress);
    let volumes = ImageVolumes::open(image)
        .map_err(|error| Failure::from(error).about(format!("image {id}")))?;
    Ok((store, id, volumes))
}

fn find<'v>(volumes: &'v ImageVolumes, place: &VolumePath) -> Result<&'v Volume, Failure> {
    let found = volumes.get(&place.volume);
    found.ok_or_else(|| no_volume(volumes, place))
}

fn no_volume(volumes: &ImageVolumes, place: &VolumePath) -> Failure {
    let names: Vec<_> = volumes.all().iter().map(Volume::name).collect();
    let failure = Failure::new(format!("the image has no volume {}", place.volume));
    if names.is_empty() {
        failure.hint("`wsnap run --volume NAME::GUEST` gives a program a volume")
    } else {
        failure.hint(format!("it has: {}", names.join(", ")))
    }
}
