//! Writes that the system refuses half-way. A limit on the size of files stands in for a full disk: it hits every
//! write at any byte, needs no privileges, and takes the same path through the code. It holds for the whole process,
//! so this is the only test in its file.

mod common;

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use common::{any_content, empty_store, files_in, publish};
use fastrand::Rng;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wsnap_snapshots::StoreError;

fn limit_file_size(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(
        Resource::Fsize,
        Rlimit {
            current: bytes.or(maximum),
            maximum,
        },
    )
    .unwrap();
}

#[test]
fn a_write_that_is_refused_half_way_leaves_the_store_as_it_was() {
    // Without a handler the signal would end the process instead of letting the write fail.
    signal_hook::flag::register(
        rustix::process::Signal::XFSZ.as_raw(),
        Arc::new(AtomicBool::new(false)),
    )
    .unwrap();
    let (_folder, store) = empty_store();
    let mut rng = Rng::with_seed(1);
    let old = publish(&store, &[&any_content(&mut rng, 300_000, 30)]).unwrap();
    let memory = any_content(&mut rng, 300_000, 20);

    let mut refused = 0;
    for limit in (0..).step_by(997) {
        limit_file_size(Some(limit));
        let result = publish(&store, &[&memory]);
        limit_file_size(None);
        assert!(files_in(&store.directory().join("tmp")).is_empty());
        store.load(old).unwrap().verify().unwrap();
        match result {
            Ok(new) => {
                store.load(new).unwrap().verify().unwrap();
                break;
            }
            Err(StoreError::Io {
                operation: "write",
                path,
                source,
            }) => {
                assert_eq!(source.kind(), ErrorKind::FileTooLarge);
                assert!(
                    path.starts_with(store.directory()) && !path.exists(),
                    "{}",
                    path.display()
                );
                assert_eq!(store.images().unwrap().len(), 1);
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    // The largest file of the new image is its layer.
    assert!(
        refused > 10 * 4096 / 997,
        "only {refused} writes were refused"
    );
}
