//! Programs that are kept running under a name: whose they are, and what is remembered of them.

mod common;

use std::fs;
use std::time::Duration;

use common::{empty_store, files_in, publish_seed, record};
use wsnap_snapshots::{Damage, GcOptions, Item, Rejection, Store, StoreError};

#[test]
fn a_name_belongs_to_one_at_a_time_and_others_learn_to_whom() {
    let (_folder, store) = empty_store();
    let lock = store.lock_job("sim", "process 12").expect("it is free");
    let other = Store::open(store.directory()).expect("the same store");
    match other.lock_job("sim", "process 13") {
        Err(StoreError::JobTaken { name, holder }) => {
            assert_eq!((name.as_str(), holder.as_str()), ("sim", "process 12"));
        }
        taken => panic!("{taken:?}"),
    }
    let _another = other
        .lock_job("other", "process 13")
        .expect("another name is free");
    drop(lock);
    drop(
        other
            .lock_job("sim", "process 13")
            .expect("it is free again"),
    );
}

#[test]
fn a_journal_is_replaced_as_a_whole_and_forgotten() {
    let (_folder, store) = empty_store();
    assert_eq!(store.job_journal("sim").unwrap(), None);
    store.remove_job_journal("sim").expect("there is none");
    for text in [&b"{}"[..], b"{\"resumes\":1}", b""] {
        store.set_job_journal("sim", text.to_vec()).unwrap();
        assert_eq!(store.job_journal("sim").unwrap().unwrap(), text);
    }
    assert_eq!(store.job_journal("other").unwrap(), None);
    assert!(files_in(&store.directory().join("tmp")).is_empty());
    store.remove_job_journal("sim").unwrap();
    assert_eq!(store.job_journal("sim").unwrap(), None);
}

#[test]
fn no_journal_leads_out_of_the_store() {
    let (_folder, store) = empty_store();
    for name in ["../sim", "", ".", "a/b"] {
        let invalid = |result: Result<(), StoreError>| {
            assert!(
                matches!(result, Err(StoreError::InvalidName { .. })),
                "{name}"
            );
        };
        invalid(store.lock_job(name, "me").map(drop));
        invalid(store.job_journal(name).map(drop));
        invalid(store.set_job_journal(name, Vec::new()));
        invalid(store.remove_job_journal(name));
    }
    match store.set_job_journal("sim", vec![b'a'; 1 << 20]) {
        Err(StoreError::TooLarge { .. }) => (),
        written => panic!("{written:?}"),
    }
}

fn is_checksum_damage<T>(read: &Result<T, StoreError>) -> bool {
    matches!(
        read,
        Err(StoreError::Damaged {
            source: Damage::JournalChecksum,
            ..
        })
    )
}

#[test]
fn a_journal_of_which_any_bit_is_wrong_is_damaged_and_verification_finds_it() {
    let (_folder, store) = empty_store();
    store
        .set_job_journal("sim", b"{\"resumes\":1}".to_vec())
        .unwrap();
    let path = store.directory().join("jobs/sim.journal");
    let intact = fs::read(&path).unwrap();
    let items = store.inventory().unwrap();
    let item = Item::Journal("sim".to_owned());
    assert!(items.contains(&item), "{items:?}");
    for bit in 0..intact.len() * 8 {
        let mut bytes = intact.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, bytes).unwrap();
        assert!(
            store.verification().verify(&item, &|_| ()).is_err(),
            "bit {bit}"
        );
        let read = store.job_journal("sim");
        assert!(is_checksum_damage(&read), "bit {bit}: {read:?}");
    }
    let missing = intact[..intact.len() - 1].to_vec();
    fs::write(&path, missing).unwrap();
    let read = store.job_journal("sim");
    assert!(is_checksum_damage(&read), "{read:?}");
}

#[test]
fn garbage_collection_leaves_journals_and_rejections_alone() {
    let (_folder, store) = empty_store();
    let image = publish_seed(&store, 1);
    let made = record(&store, image, None, 10, Some("sim"));
    store.set_name("sim", image).unwrap();
    let rejection = Rejection {
        at_ms: 20,
        reason: "it trapped".to_owned(),
    };
    store.reject(made.id, &rejection).unwrap();
    store.set_job_journal("sim", b"{}".to_vec()).unwrap();
    let lock = store.lock_job("sim", "me").unwrap();
    store
        .gc(&GcOptions {
            grace: Duration::ZERO,
            ..GcOptions::default()
        })
        .unwrap();
    drop(lock);
    assert_eq!(store.job_journal("sim").unwrap().unwrap(), b"{}");
    let records = store.records_named("sim").unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].rejected, Some(rejection));
}

#[test]
fn a_rejection_changes_nothing_else_of_a_record() {
    let (_folder, store) = empty_store();
    let image = publish_seed(&store, 1);
    let made = record(&store, image, None, 10, Some("sim"));
    let rejection = Rejection {
        at_ms: 20,
        reason: "wasm trap: a line\nand \"another\"".to_owned(),
    };
    store.reject(made.id, &rejection).unwrap();
    let found = store.record_of(image).unwrap().unwrap();
    assert_eq!(found.rejected.as_ref(), Some(&rejection));
    let mut expected = made.clone();
    expected.rejected = Some(rejection.clone());
    assert_eq!(found, expected);
    let other = record(&store, publish_seed(&store, 2), None, 11, Some("sim"));
    let path = store.directory().join(format!("records/{}.json", other.id));
    fs::remove_file(path).unwrap();
    match store.reject(other.id, &rejection) {
        Err(StoreError::Missing { .. }) => (),
        rejected => panic!("{rejected:?}"),
    }
}
