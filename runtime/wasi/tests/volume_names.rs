//! How much the names in a volume may take: they are in the host's memory and in every image.

mod common;

use common::{DIR, Guest, PATH, PATH2, READ, WRITE, closed_streams, returned};
use wsnap_wasi::{Errno, Grants, OFlags, VolumeGrant, Wasi};

/// What is counted for a file with a name of 200 bytes.
const FILE_BYTES: u64 = 64 + 16 + 200;

/// A guest whose only directory is a volume, with room for ten names of 200 bytes and their files beside the root and a
/// file `f`.
fn guest() -> Guest {
    let mut guest = Guest::with(|config| {
        config.preopens.clear();
        config.volumes.push(VolumeGrant {
            name: "v".to_owned(),
            guest_path: "/v".to_owned(),
        });
    });
    let root_and_file = 64 + 64 + 16 + 1;
    let limit = root_and_file + 10 * FILE_BYTES;
    guest.wasi.set_volume_limit(limit);
    guest.create("f");
    guest
}

fn name(number: usize) -> String {
    format!("{number:0200}")
}

/// How often it goes well until the volume is full.
fn until_full(mut make: impl FnMut(String) -> Result<(), Errno>) -> usize {
    let made = (0..1000).map(|number| make(name(number)));
    let mut count = 0;
    for result in made {
        match result {
            Ok(()) => count += 1,
            Err(error) => {
                assert_eq!(error, Errno::Nospc);
                return count;
            }
        }
    }
    panic!("the volume is never full");
}

impl Guest {
    fn link(&mut self, new: &str) -> Result<(), Errno> {
        let (old, new) = (self.put(PATH, b"f"), self.put(PATH2, new.as_bytes()));
        returned(call!(self.path_link(DIR, 0, PATH, old, DIR, PATH2, new)))
    }

    fn symlink(&mut self, target: &str, new: &str) -> Result<(), Errno> {
        let (target, new) = (
            self.put(PATH, target.as_bytes()),
            self.put(PATH2, new.as_bytes()),
        );
        returned(call!(self.path_symlink(PATH, target, DIR, PATH2, new)))
    }

    fn rename(&mut self, old: &str, new: &str) -> Result<(), Errno> {
        let (old, new) = (
            self.put(PATH, old.as_bytes()),
            self.put(PATH2, new.as_bytes()),
        );
        returned(call!(self.path_rename(DIR, PATH, old, DIR, PATH2, new)))
    }

    fn unlink(&mut self, path: &str) -> Result<(), Errno> {
        let length = self.put(PATH, path.as_bytes());
        returned(call!(self.path_unlink_file(DIR, PATH, length)))
    }
}

#[test]
fn names_of_one_file_fill_a_volume_though_they_have_no_content() {
    let mut guest = guest();
    // The files of ten names are not needed.
    assert_eq!(
        until_full(|name| guest.link(&name)),
        10 * FILE_BYTES as usize / 216
    );
    assert_eq!(guest.link("g"), Ok(()), "a short one still fits");
}

#[test]
fn empty_files_directories_and_links_fill_a_volume() {
    let mut files = guest();
    let create = |name: String| files.open(&name, OFlags::CREAT, WRITE).map(drop);
    assert_eq!(until_full(create), 10);
    let mut directories = guest();
    let create = |name: String| {
        let length = directories.put(PATH, name.as_bytes());
        returned(call!(directories.path_create_directory(DIR, PATH, length)))
    };
    assert_eq!(until_full(create), 10);
    let mut links = guest();
    let target = "t".repeat(FILE_BYTES as usize);
    assert_eq!(until_full(|name| links.symlink(&target, &name)), 5);
}

#[test]
fn a_volume_full_of_names_takes_others_when_some_are_gone() {
    let mut guest = guest();
    let create = |name: String| guest.open(&name, OFlags::CREAT, READ | WRITE).map(drop);
    assert_eq!(until_full(create), 10);
    assert_eq!(guest.rename("f", &name(10)), Err(Errno::Nospc));
    assert_eq!(guest.rename(&name(3), "short"), Ok(()));
    assert_eq!(guest.rename("short", &name(3)), Ok(()));
    assert_eq!(guest.rename("f", &name(3)), Ok(()), "it takes its place");
    assert_eq!(guest.unlink(&name(4)), Ok(()));
    let again = guest.open(&name(4), OFlags::CREAT, WRITE);
    assert_eq!(
        again,
        Err(Errno::Nospc),
        "what is open stays, with or without a name"
    );
    assert_eq!(guest.rename(&name(3), "f"), Ok(()));
    let again = guest.open(&name(4), OFlags::CREAT, WRITE);
    assert!(again.is_ok());
}

#[test]
fn what_is_counted_is_what_is_there_also_for_a_resumed_program() {
    let mut guest = guest();
    let create = |name: String| guest.open(&name, OFlags::CREAT, READ | WRITE).map(drop);
    assert_eq!(until_full(create), 10);
    let grants = Grants {
        streams: closed_streams(),
        ..Grants::default()
    };
    let wasi = Wasi::restore(&guest.state(), grants).expect("nothing is missing");
    let mut resumed = Guest { wasi, ..guest };
    resumed
        .wasi
        .set_volume_limit(64 + 64 + 16 + 1 + 10 * FILE_BYTES);
    assert_eq!(resumed.link(&name(10)), Err(Errno::Nospc));
    assert_eq!(resumed.rename("f", "g"), Ok(()));
    resumed
        .wasi
        .set_volume_limit(64 + 64 + 16 + 1 + 11 * FILE_BYTES);
    assert_eq!(
        resumed.open(&name(10), OFlags::CREAT, WRITE).map(drop),
        Ok(())
    );
    assert_eq!(resumed.symlink("g", "h"), Err(Errno::Nospc));
}
