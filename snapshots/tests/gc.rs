//! Garbage collection: what stays, what goes, and what is said about it.

mod common;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::{
    any_content, disk_bytes, empty_store, files_in, publish, publish_change, publish_seed, record,
    tree,
};
use fastrand::Rng;
use wsnap_snapshots::{
    Damage, GcOptions, ImageId, KeptBecause, NewRecord, Record, RecordId, Retention, Store,
    StoreError,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Nothing is young.
const NO_GRACE: GcOptions = GcOptions {
    dry_run: false,
    grace: Duration::ZERO,
    retention: None,
};

fn images(store: &Store) -> BTreeSet<ImageId> {
    store
        .images()
        .unwrap()
        .iter()
        .map(|entry| entry.id)
        .collect()
}

fn count(store: &Store, folder: &str) -> usize {
    files_in(&store.directory().join(folder)).len()
}

/// Makes an image and its records look as if they had been stored so long ago.
fn age(store: &Store, image: ImageId, age: Duration) {
    let time = SystemTime::now() - age;
    let mut paths = vec![store.directory().join(format!("images/{image}"))];
    let records = store.records().unwrap();
    let own = records.iter().filter(|record| record.image == image);
    paths.extend(own.map(|record| {
        store
            .directory()
            .join(format!("records/{}.json", record.id))
    }));
    for path in paths {
        File::open(path).unwrap().set_modified(time).unwrap();
    }
}

fn check_all(store: &Store) {
    for id in images(store) {
        store.load(id).unwrap().verify().unwrap();
        store.module(store.manifest(id).unwrap().module).unwrap();
    }
    let references = store
        .tags()
        .unwrap()
        .into_values()
        .chain(store.names().unwrap().into_values());
    for id in references {
        store.load(id).unwrap();
    }
    for record in store.records().unwrap() {
        store.load(record.image).unwrap();
    }
}

#[test]
fn what_nothing_points_at_is_deleted_with_all_its_content() {
    let (_folder, store) = empty_store();
    let tagged = publish_seed(&store, 1);
    let latest = publish_seed(&store, 2);
    let garbage = publish_seed(&store, 3);
    let module = store.put_module(b"a module that nobody runs").unwrap();
    store.set_tag("v1", tagged).unwrap();
    store.set_name("job", latest).unwrap();
    let record = record(&store, garbage, None, 1, Some("job"));
    fs::write(store.directory().join("tmp/.tmp123"), vec![1; 5000]).unwrap();
    let before = disk_bytes(store.directory());

    let report = store.gc(&NO_GRACE).unwrap();
    assert_eq!(report.images, [garbage]);
    assert_eq!(report.records, [record.id]);
    assert_eq!(report.kept, []);
    assert_eq!(report.live_images, 2);
    let freed = report.freed;
    let kinds = [
        freed.images,
        freed.records,
        freed.page_maps,
        freed.layers,
        freed.modules,
    ];
    assert_eq!(kinds.map(|amount| amount.count), [1; 5]);
    assert_eq!(freed.temporary.count, 1);
    assert_eq!(freed.total().count, 6);
    assert_eq!(freed.total().bytes, before - disk_bytes(store.directory()));
    assert_eq!(images(&store), BTreeSet::from([tagged, latest]));
    assert_eq!(
        ["images", "memories", "layers"].map(|folder| count(&store, folder)),
        [2; 3]
    );
    assert_eq!(
        ["modules", "records", "tmp"].map(|folder| count(&store, folder)),
        [1, 0, 0]
    );
    match store.module(module) {
        Err(StoreError::Missing { what: "module", .. }) => (),
        other => panic!("{other:?}"),
    }
    check_all(&store);
}

#[test]
fn a_dry_run_reports_the_same_and_changes_nothing() {
    let (_folder, store) = empty_store();
    let kept = publish_seed(&store, 0);
    store.set_tag("v1", kept).unwrap();
    for seed in 1..5 {
        record(&store, publish_seed(&store, seed), None, seed, None);
    }
    fs::write(store.directory().join("tmp/.tmp123"), "x").unwrap();
    let before = tree(store.directory());
    let dry = GcOptions {
        dry_run: true,
        ..NO_GRACE
    };
    let report = store.gc(&dry).unwrap();
    assert_eq!(tree(store.directory()), before);
    assert!(report.dry_run);
    let mut wet = store.gc(&NO_GRACE).unwrap();
    wet.dry_run = true;
    assert_eq!(report, wet);
    assert_eq!(images(&store), BTreeSet::from([kept]));
    // Nothing is left to do.
    let again = store.gc(&NO_GRACE).unwrap();
    assert_eq!(again.freed.total().count, 0);
}

#[test]
fn the_ancestors_of_what_stays_stay_through_every_record_of_an_image() {
    let (_folder, store) = empty_store();
    let ids: Vec<ImageId> = (0..7).map(|seed| publish_seed(&store, seed)).collect();
    let first = record(&store, ids[0], None, 1, None);
    let second = record(&store, ids[1], Some(first.id), 2, None);
    let other = record(&store, ids[2], None, 3, None);
    // The same state was reached in two ways.
    let joined = record(&store, ids[3], Some(second.id), 4, None);
    record(&store, ids[3], Some(other.id), 5, None);
    let latest = record(&store, ids[4], Some(joined.id), 6, None);
    // A branch that nobody wants, and a child of what stays.
    record(&store, ids[5], Some(first.id), 7, None);
    record(&store, ids[6], Some(latest.id), 8, None);
    store.set_name("job", ids[4]).unwrap();
    let report = store.gc(&NO_GRACE).unwrap();
    assert_eq!(
        report.images.iter().copied().collect::<BTreeSet<_>>(),
        [ids[5], ids[6]].into()
    );
    assert_eq!(images(&store), ids[..5].iter().copied().collect());
    assert_eq!(store.records().unwrap().len(), 6);
    check_all(&store);
}

#[test]
fn young_images_stay_with_their_ancestors_for_the_grace_period() {
    let (_folder, store) = empty_store();
    let ids: Vec<ImageId> = (0..4).map(|seed| publish_seed(&store, seed)).collect();
    let parent = record(&store, ids[0], None, 1, None);
    record(&store, ids[1], Some(parent.id), 2, None);
    record(&store, ids[2], None, 3, None);
    age(&store, ids[0], 100 * DAY);
    age(&store, ids[1], 13 * DAY);
    age(&store, ids[2], 15 * DAY);
    age(&store, ids[3], 15 * DAY);
    // Stored again, so it counts as young.
    record(&store, ids[3], None, 4, None);

    let report = store.gc(&GcOptions::default()).unwrap();
    assert_eq!(report.images, [ids[2]]);
    let mut expected = [ids[1], ids[3]].map(|id| (id, KeptBecause::Young));
    expected.sort_unstable();
    assert_eq!(report.kept, expected);
    age(&store, ids[1], 14 * DAY);
    let report = store.gc(&GcOptions::default()).unwrap();
    assert_eq!(report.images.len(), 2);
    assert_eq!(images(&store), BTreeSet::from([ids[3]]));
    check_all(&store);
}

#[test]
fn an_image_from_the_future_counts_as_young() {
    let (_folder, store) = empty_store();
    let id = publish_seed(&store, 1);
    let path = store.directory().join(format!("images/{id}"));
    File::open(path)
        .unwrap()
        .set_modified(SystemTime::now() + 1000 * DAY)
        .unwrap();
    let report = store.gc(&GcOptions::default()).unwrap();
    assert_eq!(report.kept, [(id, KeptBecause::Young)]);
}

#[test]
fn images_in_use_stay_with_their_ancestors_and_what_they_consist_of() {
    let (_folder, store) = empty_store();
    let ids: Vec<ImageId> = (0..3).map(|seed| publish_seed(&store, seed)).collect();
    let parent = record(&store, ids[0], None, 1, None);
    record(&store, ids[1], Some(parent.id), 2, None);
    let held = store.load(ids[1]).unwrap();
    let report = store.gc(&NO_GRACE).unwrap();
    assert_eq!(report.images, [ids[2]]);
    assert_eq!(report.kept, [(ids[1], KeptBecause::InUse)]);
    held.verify().unwrap();
    check_all(&store);
    drop(held);
    store.gc(&NO_GRACE).unwrap();
    assert_eq!(images(&store), BTreeSet::new());
}

#[test]
fn what_live_and_dead_images_share_stays() {
    let (_folder, store) = empty_store();
    let (shared, own) = (vec![1; 4096], vec![2; 4096]);
    let live = publish(&store, &[&shared]).unwrap();
    publish(&store, &[&shared, &own]).unwrap();
    store.set_tag("v1", live).unwrap();
    let report = store.gc(&NO_GRACE).unwrap();
    assert_eq!(report.freed.images.count, 1);
    assert_eq!(report.freed.layers.count, 1);
    assert_eq!(report.freed.modules.count, 0);
    check_all(&store);
}

#[test]
fn anything_unreadable_that_is_live_aborts_and_nothing_is_deleted() {
    for damaged in ["images", "memories", "tags", "names", "records"] {
        for missing in [false, true] {
            let (_folder, store) = empty_store();
            let live = publish_seed(&store, 1);
            store.set_tag("v1", live).unwrap();
            store.set_name("job", live).unwrap();
            record(&store, live, None, 1, None);
            let bad = files_in(&store.directory().join(damaged)).remove(0);
            publish_seed(&store, 2);
            fs::remove_file(&bad).unwrap();
            if !missing {
                fs::write(&bad, "damaged").unwrap();
            } else if ["tags", "names", "records"].contains(&damaged) {
                // Nobody can tell that they were ever there.
                continue;
            }
            let before = tree(store.directory());
            match store.gc(&NO_GRACE) {
                Err(StoreError::Missing { path, .. }) if missing => assert_eq!(path, bad),
                Err(StoreError::Damaged { path, .. }) if !missing => assert_eq!(path, bad),
                other => panic!("{damaged} {missing}: {other:?}"),
            }
            assert_eq!(tree(store.directory()), before);
        }
    }
}

#[test]
fn a_missing_ancestor_aborts_until_it_is_removed() {
    let (_folder, store) = empty_store();
    let ids: Vec<ImageId> = (0..3).map(|seed| publish_seed(&store, seed)).collect();
    let first = record(&store, ids[0], None, 1, None);
    let second = record(&store, ids[1], Some(first.id), 2, None);
    record(&store, ids[2], Some(second.id), 3, None);
    store.set_tag("v1", ids[2]).unwrap();
    let path = store.directory().join(format!("images/{}", ids[1]));
    fs::remove_file(&path).unwrap();
    match store.gc(&NO_GRACE) {
        Err(StoreError::Missing { path: named, .. }) => assert_eq!(named, path),
        other => panic!("{other:?}"),
    }
    store.remove_image(ids[1], false).unwrap();
    store.gc(&NO_GRACE).unwrap();
    assert_eq!(images(&store), BTreeSet::from([ids[0], ids[2]]));
}

#[test]
fn damage_in_garbage_keeps_nobody_from_deleting_it() {
    let (_folder, store) = empty_store();
    for seed in 0..4 {
        publish_seed(&store, seed);
    }
    for (index, folder) in ["images", "memories", "layers", "modules"]
        .iter()
        .enumerate()
    {
        let files = files_in(&store.directory().join(folder));
        let file = &files[index % files.len()];
        fs::remove_file(file).unwrap();
        fs::write(file, "damaged").unwrap();
    }
    store.gc(&NO_GRACE).unwrap();
    for folder in ["images", "memories", "layers", "modules"] {
        assert_eq!(count(&store, folder), 0, "{folder}");
    }
}

#[test]
fn files_that_are_not_the_stores_are_left_alone() {
    let (_folder, store) = empty_store();
    for file in [
        "images/notes",
        "layers/notes.txt",
        "modules/readme",
        "records/x.json",
        "notes",
    ] {
        fs::write(store.directory().join(file), "mine").unwrap();
    }
    drop(store.lock_exclusive().unwrap());
    let before = tree(store.directory());
    let report = store.gc(&NO_GRACE).unwrap();
    assert_eq!(report.freed.total().count, 0);
    assert_eq!(tree(store.directory()), before);
}

#[test]
fn a_retention_thins_out_the_history_of_programs_that_have_a_name() {
    const HOUR_MS: u64 = 3_600_000;
    let (_folder, store) = empty_store();
    let ids: Vec<ImageId> = (0..12).map(|seed| publish_seed(&store, seed)).collect();
    let mut parent = None;
    let mut times = Vec::new();
    // Three snapshots an hour.
    for (index, id) in ids[..10].iter().enumerate() {
        let time = index as u64 * HOUR_MS / 3;
        times.push(time);
        parent = Some(record(&store, *id, parent, time, Some("job")).id);
    }
    record(&store, ids[10], None, 0, Some("gone"));
    record(&store, ids[11], None, 0, None);
    store.set_name("job", ids[9]).unwrap();
    store.set_tag("v1", ids[0]).unwrap();
    let held = store.load(ids[3]).unwrap();
    let thinned = GcOptions {
        retention: Some(Retention {
            last: 2,
            one_per: Some(Duration::from_millis(HOUR_MS)),
        }),
        ..GcOptions::default()
    };
    let report = store.gc(&thinned).unwrap();
    // The last two are 8 and 9, the last ones of the hours 2, 5, 8 and 9; 10 and 11 are young and not managed.
    let expected = [0, 2, 3, 5, 8, 9, 10, 11].map(|index| ids[index]);
    assert_eq!(images(&store), expected.into());
    assert_eq!(report.images.len(), 4);
    let in_use = (ids[3], KeptBecause::InUse);
    let young = [10, 11].map(|index| (ids[index], KeptBecause::Young));
    let mut kept = vec![in_use, young[0], young[1]];
    kept.sort_unstable();
    assert_eq!(report.kept, kept);
    let records = store.records().unwrap();
    let chain: Vec<(ImageId, Option<ImageId>)> = records
        .iter()
        .filter(|record| record.name.as_deref() == Some("job"))
        .map(|record| {
            let parent = records.iter().find(|other| Some(other.id) == record.parent);
            (record.image, parent.map(|parent| parent.image))
        })
        .collect();
    let expected = [
        (0, None),
        (2, Some(0)),
        (3, Some(2)),
        (5, Some(3)),
        (8, Some(5)),
        (9, Some(8)),
    ];
    assert_eq!(
        chain,
        expected.map(|(image, parent)| (ids[image], parent.map(|parent: usize| ids[parent])))
    );
    check_all(&store);
    drop(held);
    assert_eq!(store.gc(&thinned).unwrap().images, [ids[3]]);
}

#[test]
fn the_latest_image_of_a_program_stays_whatever_a_retention_says() {
    let (_folder, store) = empty_store();
    let old = publish_seed(&store, 1);
    let new = publish_seed(&store, 2);
    let first = record(&store, old, None, 1, Some("job"));
    record(&store, new, Some(first.id), 2, Some("job"));
    // Somebody went back to the old one.
    store.set_name("job", old).unwrap();
    let nothing = GcOptions {
        retention: Some(Retention {
            last: 0,
            one_per: None,
        }),
        ..GcOptions::default()
    };
    assert_eq!(store.gc(&nothing).unwrap().images, [new]);
    check_all(&store);
}

/// A store with a history at random, some of it old, tagged, named or in use.
struct Random {
    records: Vec<Record>,
    images: BTreeSet<ImageId>,
    old: HashSet<ImageId>,
    roots: HashSet<ImageId>,
    names: BTreeMap<String, ImageId>,
    held: Vec<ImageId>,
}

impl Random {
    fn new(store: &Store, rng: &mut Rng) -> Self {
        // Each but the first shares pages with another one.
        let mut images = vec![publish_seed(store, 0)];
        for byte in 1..8 {
            let base = store.load(images[rng.usize(..images.len())]).unwrap();
            let page = rng.u64(..3);
            images.push(publish_change(store, &base, page..page + 1, byte).id());
        }
        let mut ids: Vec<RecordId> = Vec::new();
        for time in 0..rng.u64(0..16) {
            let mut new = NewRecord::new(images[rng.usize(..images.len())], time / 2, "snap");
            new.parent = (rng.u8(..4) > 0 && !ids.is_empty()).then(|| ids[rng.usize(..ids.len())]);
            new.name = (rng.u8(..4) > 0).then(|| ["a", "b", "gone"][rng.usize(..3)].to_owned());
            ids.push(store.put_record(new).unwrap().id);
        }
        for name in ["a", "b"] {
            if rng.bool() {
                store
                    .set_name(name, images[rng.usize(..images.len())])
                    .unwrap();
            }
        }
        if rng.bool() {
            store
                .set_tag("v1", images[rng.usize(..images.len())])
                .unwrap();
        }
        let old: HashSet<ImageId> = images.iter().copied().filter(|_| rng.u8(..4) > 0).collect();
        old.iter().for_each(|id| age(store, *id, 20 * DAY));
        let held = (0..rng.usize(..2))
            .map(|_| images[rng.usize(..images.len())])
            .collect();
        let names = store.names().unwrap();
        let tags = store.tags().unwrap();
        Self {
            records: store.records().unwrap(),
            images: images.into_iter().collect(),
            old,
            roots: names.values().chain(tags.values()).copied().collect(),
            names,
            held,
        }
    }

    /// What a retention of so many images keeps and drops, said in another way.
    fn retained(&self, last: usize) -> (HashSet<ImageId>, HashSet<ImageId>) {
        let mut kept = HashSet::new();
        for name in self.names.keys() {
            let mut own: Vec<&Record> = self
                .records
                .iter()
                .filter(|record| record.name.as_ref() == Some(name))
                .collect();
            own.sort_by_key(|record| std::cmp::Reverse((record.taken_at_ms, record.id)));
            let mut newest: Vec<ImageId> = Vec::new();
            for record in own {
                if !newest.contains(&record.image) {
                    newest.push(record.image);
                }
            }
            kept.extend(newest.into_iter().take(last));
        }
        let is_managed = |record: &&Record| {
            record
                .name
                .as_ref()
                .is_some_and(|name| self.names.contains_key(name))
        };
        let of = |image: ImageId| {
            self.records
                .iter()
                .filter(move |record| record.image == image)
        };
        let dropped = self.images.iter().copied().filter(|image| {
            of(*image).count() > 0
                && of(*image).count() == of(*image).filter(is_managed).count()
                && !kept.contains(image)
        });
        let dropped = dropped.collect();
        (kept, dropped)
    }

    fn live(&self, last: Option<usize>) -> BTreeSet<ImageId> {
        let (kept, dropped) = last.map(|last| self.retained(last)).unwrap_or_default();
        let mut live: BTreeSet<ImageId> = self.roots.union(&kept).copied().collect();
        live.extend(&self.held);
        let young = self
            .images
            .iter()
            .filter(|id| !self.old.contains(id) && !dropped.contains(id));
        live.extend(young);
        // Records that something live came from, until there are no more.
        let mut wanted: HashSet<RecordId> = HashSet::new();
        loop {
            let size = wanted.len() + live.len();
            for record in &self.records {
                if live.contains(&record.image) || wanted.contains(&record.id) {
                    wanted.insert(record.id);
                    wanted.extend(record.parent);
                }
            }
            for record in &self.records {
                if wanted.contains(&record.id) && !dropped.contains(&record.image) {
                    live.insert(record.image);
                }
            }
            if wanted.len() + live.len() == size {
                return live;
            }
        }
    }
}

#[test]
fn of_any_history_the_same_stays_as_in_a_naive_model() {
    let mut rng = Rng::with_seed(3);
    for round in 0..40 {
        let (_folder, store) = empty_store();
        let random = Random::new(&store, &mut rng);
        let last = rng.bool().then(|| rng.usize(..3));
        let held: Vec<_> = random
            .held
            .iter()
            .map(|id| store.load(*id).unwrap())
            .collect();
        let options = GcOptions {
            retention: last.map(|last| Retention {
                last: last as u64,
                one_per: None,
            }),
            ..GcOptions::default()
        };
        let expected = random.live(last);
        let report = store.gc(&options).unwrap();
        assert_eq!(images(&store), expected, "round {round}, last {last:?}");
        assert_eq!(report.live_images as usize, expected.len());
        assert_eq!(report.images.len() + expected.len(), random.images.len());
        check_all(&store);
        let records: HashSet<RecordId> = store
            .records()
            .unwrap()
            .iter()
            .map(|each| each.id)
            .collect();
        for record in store.records().unwrap() {
            assert!(record.parent.is_none_or(|parent| records.contains(&parent)));
        }
        drop(held);
    }
}

#[test]
fn a_layer_that_is_damaged_is_for_verify_to_find() {
    let mut rng = Rng::with_seed(4);
    let (_folder, store) = empty_store();
    let live = publish(&store, &[&any_content(&mut rng, 100_000, 30)]).unwrap();
    store.set_tag("v1", live).unwrap();
    let layer: PathBuf = files_in(Path::new(&store.directory().join("layers"))).remove(0);
    let mut bytes = fs::read(&layer).unwrap();
    bytes[5000] ^= 1;
    fs::remove_file(&layer).unwrap();
    fs::write(&layer, bytes).unwrap();
    store.gc(&NO_GRACE).unwrap();
    assert_eq!(images(&store), BTreeSet::from([live]));
}

#[test]
fn an_unreadable_record_is_named() {
    let (_folder, store) = empty_store();
    let made = record(&store, publish_seed(&store, 1), None, 1, None);
    let path = store.directory().join(format!("records/{}.json", made.id));
    fs::write(&path, "?").unwrap();
    match store.gc(&NO_GRACE) {
        Err(StoreError::Damaged {
            what: "record",
            path: named,
            source: Damage::RecordChecksum,
        }) => {
            assert_eq!(named, path);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(count(&store, "images"), 1);
}
