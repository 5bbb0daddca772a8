//! The tree that records form, whatever they say of their parents.

use std::collections::{BTreeMap, HashSet};

use fastrand::Rng;
use wsnap_snapshots::{History, ImageId, Record, RecordId};

fn id(number: u32) -> RecordId {
    RecordId(u128::from(number).to_be_bytes())
}

fn image(number: u32) -> ImageId {
    ImageId(number.to_be_bytes().repeat(8).try_into().unwrap())
}

fn made(number: u32, parent: Option<u32>, taken_at_ms: u64) -> Record {
    Record {
        id: id(number),
        image: image(number),
        parent: parent.map(id),
        taken_at_ms,
        trigger: "snap".to_owned(),
        name: None,
        labels: BTreeMap::new(),
        added_bytes: 0,
        ran_ms: 0,
        output_bytes: None,
        rejected: None,
    }
}

fn number(record: &Record) -> u32 {
    u128::from_be_bytes(record.id.0) as u32
}

fn walk(records: &[Record]) -> Vec<(usize, u32)> {
    let history = History::new(records);
    history
        .walk()
        .map(|(depth, record)| (depth, number(record)))
        .collect()
}

#[test]
fn branches_are_ordered_by_time_however_the_records_are() {
    let mut records = vec![
        made(1, None, 10),
        made(2, Some(1), 20),
        made(3, Some(1), 15),
        made(4, Some(3), 16),
        made(5, Some(2), 21),
        made(6, None, 5),
        made(7, Some(1), 15),
    ];
    let expected = [(0, 6), (0, 1), (1, 3), (2, 4), (1, 7), (1, 2), (2, 5)];
    let mut rng = Rng::with_seed(1);
    for _ in 0..20 {
        rng.shuffle(&mut records);
        assert_eq!(walk(&records), expected);
    }
    let history = History::new(&records);
    assert_eq!(history.roots().map(number).collect::<Vec<_>>(), [6, 1]);
    assert_eq!(
        history.children(id(1)).map(number).collect::<Vec<_>>(),
        [3, 7, 2]
    );
    assert_eq!(history.children(id(99)).count(), 0);
    assert_eq!(
        history.ancestry(image(4)).map(number).collect::<Vec<_>>(),
        [4, 3, 1]
    );
    assert_eq!(history.ancestry(image(99)).count(), 0);
}

#[test]
fn the_newest_record_stands_for_an_image_and_for_a_program() {
    let mut records = vec![
        made(1, None, 1),
        made(2, None, 2),
        made(3, Some(2), 3),
        made(4, None, 4),
    ];
    records[0].image = image(3);
    records[1].name = Some("job".to_owned());
    records[2].name = Some("job".to_owned());
    let history = History::new(&records);
    assert_eq!(history.record_of(image(3)).map(number), Some(3));
    assert_eq!(history.latest_of("job").map(number), Some(3));
    assert_eq!(history.latest_of("other"), None);
    assert_eq!(
        history.ancestry(image(3)).map(number).collect::<Vec<_>>(),
        [3, 2]
    );
}

#[test]
fn a_record_whose_parent_is_missing_is_a_root() {
    assert_eq!(
        walk(&[made(2, Some(1), 2), made(3, Some(2), 3)]),
        [(0, 2), (1, 3)]
    );
}

#[test]
fn a_circle_is_opened_at_its_oldest_record() {
    assert_eq!(walk(&[made(1, Some(1), 1)]), [(0, 1)]);
    let records = [
        made(1, Some(2), 9),
        made(2, Some(3), 5),
        made(3, Some(1), 7),
        made(4, Some(1), 1),
        made(5, Some(4), 2),
    ];
    assert_eq!(walk(&records), [(0, 2), (1, 1), (2, 4), (3, 5), (2, 3)]);
    let history = History::new(&records);
    assert_eq!(
        history.ancestry(image(5)).map(number).collect::<Vec<_>>(),
        [5, 4, 1, 2]
    );
    assert_eq!(history.parent(id(2)), None);
}

#[test]
fn every_record_is_walked_once_whatever_the_parents_say() {
    let mut rng = Rng::with_seed(2);
    for round in 0..2000 {
        let count = rng.u32(0..12);
        // Ids occur twice, and parents are missing, their own children, or later than their children.
        let records: Vec<Record> = (0..count)
            .map(|_| {
                let parent = rng.bool().then(|| rng.u32(0..12));
                made(rng.u32(0..12), parent, rng.u64(0..5))
            })
            .collect();
        let distinct: HashSet<u32> = records.iter().map(number).collect();
        let history = History::new(&records);
        let mut depths: Vec<(u32, usize)> = Vec::new();
        for (depth, record) in history.walk() {
            assert_eq!(
                history.lineage(Some(record.id)).count(),
                depth + 1,
                "round {round}"
            );
            let parent = history.parent(record.id);
            if let Some(parent) = parent {
                assert_eq!(record.parent, Some(parent.id));
                assert!(depths.contains(&(number(parent), depth - 1)));
            }
            depths.push((number(record), depth));
        }
        assert_eq!(depths.len(), distinct.len());
        assert_eq!(
            depths.iter().map(|(each, _)| *each).collect::<HashSet<_>>(),
            distinct
        );
    }
}

#[test]
fn a_hundred_thousand_generations_are_no_problem() {
    const GENERATIONS: u32 = 100_000;
    for circle in [None, Some(GENERATIONS - 1)] {
        let records: Vec<Record> = (0..GENERATIONS)
            .map(|each| made(each, each.checked_sub(1).or(circle), each.into()))
            .collect();
        let history = History::new(&records);
        assert_eq!(history.walk().last().unwrap().0, GENERATIONS as usize - 1);
        let last = image(GENERATIONS - 1);
        assert_eq!(history.ancestry(last).count(), GENERATIONS as usize);
    }
}
