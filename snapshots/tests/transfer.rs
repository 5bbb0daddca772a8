//! Images arrive as they were sent, whatever the receiving store has already.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{MODULE, any_content, content, empty_store, files_in, manifest_with, publish};
use fastrand::Rng;
use wsnap_snapshots::{
    ExportError, ExportOptions, Exported, Faults, ImageId, ImportError, ImportOptions, Imported,
    MemoryState, NewRecord, Operation, OperationKind, Progress, Record, Store, StoreError,
};

fn export(store: &Store, ids: &[ImageId], options: &ExportOptions) -> (Vec<u8>, Exported) {
    let mut stream = Vec::new();
    let exported = store.export(ids, options, &mut stream, |_| ()).unwrap();
    assert_eq!(exported.stream_bytes, stream.len() as u64);
    (stream, exported)
}

fn export_plainly(store: &Store, ids: &[ImageId]) -> Vec<u8> {
    export(store, ids, &ExportOptions::default()).0
}

fn with_ancestors() -> ExportOptions {
    ExportOptions {
        ancestors: true,
        ..ExportOptions::default()
    }
}

fn import(store: &Store, stream: &[u8]) -> Imported {
    store
        .import(stream, &ImportOptions::default(), |_| ())
        .unwrap()
}

fn check(store: &Store, id: ImageId, memories: &[&[u8]]) {
    let image = store.load(id).unwrap();
    image.verify().unwrap();
    for (index, memory) in memories.iter().enumerate() {
        assert!(content(&image, index) == *memory, "memory {index} of {id}");
    }
}

/// All files of a store with their content.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut contents = BTreeMap::new();
    for path in files_in(folder) {
        if path.is_dir() {
            contents.extend(self::contents(&path));
        } else {
            contents.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    contents
}

/// A program's history: one memory that grows and changes, a second one that stays zero.
struct History {
    images: Vec<ImageId>,
    memories: Vec<Vec<u8>>,
    records: Vec<Record>,
}

/// Publishes `count` snapshots, each a child of the one before, but every fourth a branch from the first.
fn publish_history(store: &Store, rng: &mut Rng, count: usize) -> History {
    let module = store.put_module(MODULE).unwrap();
    let mut history = History {
        images: Vec::new(),
        memories: Vec::new(),
        records: Vec::new(),
    };
    for number in 0..count {
        let parent = match number {
            0 => None,
            _ if number % 4 == 3 => Some(0),
            _ => Some(number - 1),
        };
        let mut memory = match parent {
            None => any_content(rng, 700_000, 300),
            Some(parent) => history.memories[parent].clone(),
        };
        memory.resize(memory.len() + rng.usize(0..3) * 50_000, 0);
        for _ in 0..5 {
            let at = rng.usize(0..memory.len());
            memory[at] = rng.u8(..);
        }
        // A page, and sometimes a leaf, that becomes zero again.
        let start = rng.usize(0..memory.len() - 100_000);
        let len = [4096 * 2, 1 << 17][number % 2];
        memory[start..(start + len).min(start + 100_000)].fill(0);
        let zeros = vec![0; 1 << 16];
        let id = store
            .publish(
                manifest_with(module, &[&memory, &zeros]),
                &[&memory, &zeros],
            )
            .unwrap();
        let mut record = NewRecord::new(id, 1000 + number as u64, "snap");
        record.parent = parent.map(|parent| history.records[parent].id);
        record.name = Some("job".to_owned());
        history.records.push(store.put_record(record).unwrap());
        history.images.push(id);
        history.memories.push(memory);
    }
    history
}

#[test]
fn images_with_any_memories_arrive_as_they_were() {
    let mut rng = Rng::with_seed(1);
    for _ in 0..30 {
        let (_from_folder, from) = empty_store();
        let memories: Vec<Vec<u8>> = (0..rng.usize(0..4))
            .map(|_| {
                let len = [0, 1, 4095, 4096, 65_535, 65_536, 70_001, 3_000_000][rng.usize(0..8)];
                let dirty = if len == 0 { 0 } else { rng.usize(0..300) };
                any_content(&mut rng, len, dirty)
            })
            .collect();
        let memories: Vec<&[u8]> = memories.iter().map(|memory| &memory[..]).collect();
        let id = publish(&from, &memories).unwrap();
        let stream = export_plainly(&from, &[id]);

        let (_to_folder, to) = empty_store();
        let imported = import(&to, &stream);
        assert_eq!(imported.images, [id]);
        assert_eq!(imported.new_images, [id]);
        assert_eq!(imported.stream_bytes, stream.len() as u64);
        check(&to, id, &memories);
        assert_eq!(to.manifest(id).unwrap(), from.manifest(id).unwrap());
        let module = to.manifest(id).unwrap().module;
        assert_eq!(to.module(module).unwrap(), MODULE);
        assert_eq!(
            files_in(&to.directory().join("tmp")),
            [""; 0].map(PathBuf::from)
        );
    }
}

#[test]
fn a_dense_memory_of_many_frames_arrives_as_it_was() {
    let mut rng = Rng::with_seed(2);
    let (_from_folder, from) = empty_store();
    let memory: Vec<u8> = std::iter::repeat_with(|| rng.u8(..))
        .take(19_000_001)
        .collect();
    let id = publish(&from, &[&memory]).unwrap();
    let (_to_folder, to) = empty_store();
    import(&to, &export_plainly(&from, &[id]));
    check(&to, id, &[&memory]);
}

#[test]
fn a_module_of_several_frames_arrives_as_it_was() {
    let (_from_folder, from) = empty_store();
    let mut rng = Rng::with_seed(3);
    let module: Vec<u8> = std::iter::repeat_with(|| rng.u8(..))
        .take(5_000_000)
        .collect();
    let hash = from.put_module(&module).unwrap();
    let id = from.publish(manifest_with(hash, &[]), &[]).unwrap();
    let (_to_folder, to) = empty_store();
    import(&to, &export_plainly(&from, &[id]));
    assert_eq!(to.module(hash).unwrap(), module);
    check(&to, id, &[]);
}

#[test]
fn sparse_terabytes_take_little() {
    let (_from_folder, from) = empty_store();
    let module = from.put_module(MODULE).unwrap();
    let mut manifest = manifest_with(module, &[]);
    manifest.memories.push(MemoryState::draft(1 << 14, 16));
    let memory = vec![0; 1 << 30];
    let id = from.publish(manifest, &[&memory]).unwrap();
    let stream = export_plainly(&from, &[id]);
    assert!(stream.len() < 1000, "{} bytes", stream.len());
    let (_to_folder, to) = empty_store();
    import(&to, &stream);
    check(&to, id, &[]);
}

#[test]
fn a_history_arrives_with_its_images_and_records() {
    let mut rng = Rng::with_seed(4);
    let (_from_folder, from) = empty_store();
    let history = publish_history(&from, &mut rng, 12);
    let last = history.images[11];
    let (stream, exported) = export(&from, &[last], &with_ancestors());

    let (_to_folder, to) = empty_store();
    let imported = import(&to, &stream);
    assert_eq!(imported.images, [last]);
    // 11 is a branch from 0.
    assert_eq!(imported.new_images, [history.images[0], last]);
    assert_eq!(exported.images, imported.new_images);
    assert_eq!((exported.records, imported.new_records), (2, 2));
    let expected = [history.records[0].clone(), history.records[11].clone()];
    assert_eq!(to.records().unwrap(), expected);

    let (_all_folder, all) = empty_store();
    let (stream, _) = export(&from, &history.images, &with_ancestors());
    let imported = import(&all, &stream);
    assert_eq!(imported.new_images.len(), 12);
    assert_eq!(all.records().unwrap(), history.records);
    for (id, memory) in history.images.iter().zip(&history.memories) {
        check(&all, *id, &[memory]);
    }
}

#[test]
fn what_images_have_in_common_is_sent_once() {
    let mut rng = Rng::with_seed(5);
    let (_from_folder, from) = empty_store();
    let mut memory: Vec<u8> = std::iter::repeat_with(|| rng.u8(..))
        .take(2_000_000)
        .collect();
    let first = publish(&from, &[&memory]).unwrap();
    memory[1_000_000] ^= 1;
    let second = publish(&from, &[&memory]).unwrap();
    let one = export_plainly(&from, &[first]).len();
    let both = export_plainly(&from, &[second, first]).len();
    assert!(both < one + 6000, "{one} bytes and {both} bytes");
}

#[test]
fn an_export_depends_on_the_images_alone() {
    let mut rng = Rng::with_seed(6);
    let (_from_folder, from) = empty_store();
    let history = publish_history(&from, &mut rng, 6);
    let ids = &history.images[2..5];
    let plain = export_plainly(&from, ids);
    let (whole, _) = export(&from, ids, &with_ancestors());
    assert!(export_plainly(&from, ids) == plain);

    let (_to_folder, to) = empty_store();
    // The other store has other images too, and has received these in another order.
    publish(&to, &[&history.memories[5]]).unwrap();
    for id in [history.images[4], history.images[2]] {
        import(&to, &export_plainly(&from, &[id]));
    }
    import(&to, &whole);
    let reversed: Vec<ImageId> = ids.iter().rev().copied().collect();
    assert!(export_plainly(&to, &reversed) == plain);
    assert!(export(&to, &reversed, &with_ancestors()).0 == whole);
}

#[test]
fn what_the_store_has_is_not_stored_again() {
    let mut rng = Rng::with_seed(7);
    let (_from_folder, from) = empty_store();
    let history = publish_history(&from, &mut rng, 6);
    let (_to_folder, to) = empty_store();
    import(&to, &export_plainly(&from, &history.images[1..3]));
    let (stream, _) = export(&from, &history.images, &with_ancestors());
    let imported = import(&to, &stream);
    assert_eq!(imported.images.len(), 6);
    assert_eq!(imported.new_images.len(), 4);
    assert!(imported.added_bytes > 0);
    for (id, memory) in history.images.iter().zip(&history.memories) {
        check(&to, *id, &[memory]);
    }

    let before = contents(to.directory());
    let imported = import(&to, &stream);
    assert_eq!((imported.new_images, imported.new_records), (vec![], 0));
    assert_eq!(imported.added_bytes, 0);
    assert!(contents(to.directory()) == before);
}

#[test]
fn added_bytes_are_those_of_the_new_files() {
    let mut rng = Rng::with_seed(8);
    let (_from_folder, from) = empty_store();
    let history = publish_history(&from, &mut rng, 5);
    let (_to_folder, to) = empty_store();
    let sum = |store: &Store| -> u64 {
        let folders = ["modules", "images", "memories", "layers", "records"];
        let files = folders
            .iter()
            .flat_map(|folder| files_in(&store.directory().join(folder)));
        files.map(|path| fs::metadata(path).unwrap().len()).sum()
    };
    let (stream, _) = export(&from, &history.images, &with_ancestors());
    assert_eq!(import(&to, &stream).added_bytes, sum(&to));
}

#[test]
fn names_are_proposed_to_the_receiver() {
    let (_from_folder, from) = empty_store();
    let id = publish(&from, &[b"abc"]).unwrap();
    let other = publish(&from, &[b"def"]).unwrap();
    let mut options = ExportOptions::default();
    options.names.insert("job".to_owned(), id);
    options.names.insert("another".to_owned(), id);
    let (stream, _) = export(&from, &[id], &options);
    let (_to_folder, to) = empty_store();
    assert_eq!(import(&to, &stream).names, options.names);
    assert_eq!(to.names().unwrap(), BTreeMap::new());

    match from.export(&[other], &options, io::sink(), |_| ()) {
        Err(ExportError::NameOfOtherImage { name, image }) => {
            assert_eq!((name.as_str(), image), ("another", id));
        }
        result => panic!("{result:?}"),
    }
    options.names = BTreeMap::from([("a/b".to_owned(), id)]);
    match from.export(&[id], &options, io::sink(), |_| ()) {
        Err(ExportError::Store(StoreError::InvalidName { name, .. })) => assert_eq!(name, "a/b"),
        result => panic!("{result:?}"),
    }
}

#[test]
fn every_level_gives_a_stream_that_can_be_imported() {
    let (_from_folder, from) = empty_store();
    let memory = b"wsnap ".repeat(30_000);
    let id = publish(&from, &[&memory]).unwrap();
    for level in [i32::MIN, -1, 0, 1, 22, i32::MAX] {
        let options = ExportOptions {
            level,
            ..ExportOptions::default()
        };
        let (_to_folder, to) = empty_store();
        import(&to, &export(&from, &[id], &options).0);
        check(&to, id, &[&memory]);
    }
}

#[test]
fn progress_grows_up_to_the_whole_stream() {
    let mut rng = Rng::with_seed(9);
    let (_from_folder, from) = empty_store();
    let id = publish(&from, &[&any_content(&mut rng, 9_000_000, 5000)]).unwrap();
    let mut steps = Vec::new();
    let mut stream = Vec::new();
    let exported = from
        .export(&[id], &ExportOptions::default(), &mut stream, |step| {
            steps.push(step)
        })
        .unwrap();
    let last = Progress {
        // Only the hash at the end has no frame.
        stream_bytes: exported.stream_bytes - 32,
        content_bytes: exported.content_bytes,
    };
    assert_eq!(steps.last(), Some(&last));
    let mut received = Vec::new();
    let (_to_folder, to) = empty_store();
    to.import(&stream[..], &ImportOptions::default(), |step| {
        received.push(step)
    })
    .unwrap();
    assert_eq!(received, steps);
    assert!(steps.is_sorted_by_key(|step| (step.stream_bytes, step.content_bytes)));
}

#[test]
fn a_stream_goes_through_a_pipe_while_it_is_made() {
    let mut rng = Rng::with_seed(10);
    let (_from_folder, from) = empty_store();
    let memory = any_content(&mut rng, 20_000_000, 8000);
    let id = publish(&from, &[&memory]).unwrap();
    let (_to_folder, to) = empty_store();
    let (reader, writer) = io::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            from.export(&[id], &ExportOptions::default(), writer, |_| ())
                .unwrap()
        });
        let imported = to
            .import(reader, &ImportOptions::default(), |_| ())
            .unwrap();
        assert_eq!(imported.images, [id]);
    });
    check(&to, id, &[&memory]);
}

#[test]
fn an_export_of_damaged_pages_fails_and_names_them() {
    let (_folder, store) = empty_store();
    let mut memory = vec![0; 200_000];
    memory[150_000] = 1;
    let id = publish(&store, &[&memory]).unwrap();
    let layer = common::only_file(&store, "layers");
    let mut bytes = fs::read(&layer).unwrap();
    bytes[4096 + 150_000 % 4096] = 2;
    fs::remove_file(&layer).unwrap();
    fs::write(&layer, bytes).unwrap();
    match store.export(&[id], &ExportOptions::default(), io::sink(), |_| ()) {
        Err(ExportError::Store(StoreError::DamagedMemory {
            image,
            memory,
            offset,
        })) => {
            assert_eq!((image, memory, offset), (id, 0, 2 << 16));
        }
        result => panic!("{result:?}"),
    }
}

#[test]
fn an_export_of_a_missing_image_fails_and_writes_nothing() {
    let (_folder, store) = empty_store();
    let mut stream = Vec::new();
    match store.export(
        &[ImageId([1; 32])],
        &ExportOptions::default(),
        &mut stream,
        |_| (),
    ) {
        Err(ExportError::Store(StoreError::Missing { what: "image", .. })) => (),
        result => panic!("{result:?}"),
    }
    assert_eq!(stream, b"");
}

/// Takes or gives so many bytes and then fails.
struct Broken<'a> {
    stream: &'a [u8],
    rest: usize,
}

impl Write for Broken<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(self.rest);
        self.rest -= len;
        match len {
            0 => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(len),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Broken<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(self.rest);
        if len == 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.rest -= len;
        self.stream.read(&mut buffer[..len])
    }
}

#[test]
fn broken_connections_are_reported_as_such() {
    let (_folder, store) = empty_store();
    let id = publish(&store, &[b"abc"]).unwrap();
    let stream = export_plainly(&store, &[id]);
    for rest in 0..stream.len() {
        let broken = Broken { stream: &[], rest };
        match store.export(&[id], &ExportOptions::default(), broken, |_| ()) {
            Err(ExportError::Write(error)) => {
                assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            }
            result => panic!("{rest} bytes: {result:?}"),
        }
    }
    let (_to_folder, to) = empty_store();
    let before = contents(to.directory());
    for rest in 0..=stream.len() {
        let broken = Broken {
            stream: &stream,
            rest,
        };
        match to.import(broken, &ImportOptions::default(), |_| ()) {
            Err(ImportError::Read { offset, source }) => {
                assert!(offset <= rest as u64);
                assert_eq!(source.kind(), io::ErrorKind::ConnectionReset);
            }
            result => panic!("{rest} bytes: {result:?}"),
        }
    }
    assert!(contents(to.directory()) == before);
}

/// Fails the N-th change of a store.
#[derive(Debug)]
struct FailAt {
    at: usize,
    count: AtomicUsize,
}

impl Faults for FailAt {
    fn before(&self, operation: Operation<'_>) -> io::Result<()> {
        // Only stamps are appended. They are a cache, and nobody fails because one cannot be written.
        if operation.kind == OperationKind::Append {
            return Ok(());
        }
        match self.count.fetch_add(1, Ordering::Relaxed) {
            count if count == self.at => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

#[test]
fn whatever_write_fails_images_are_complete_or_absent_and_the_next_import_completes() {
    let mut rng = Rng::with_seed(11);
    let (_from_folder, from) = empty_store();
    let history = publish_history(&from, &mut rng, 3);
    let (stream, _) = export(&from, &history.images, &with_ancestors());
    for at in 0.. {
        let (_to_folder, to) = empty_store();
        let faults = Arc::new(FailAt {
            at,
            count: AtomicUsize::new(0),
        });
        let failing = Store::open_with_faults(to.directory(), faults.clone()).unwrap();
        let result = failing.import(&stream[..], &ImportOptions::default(), |_| ());
        if faults.count.load(Ordering::Relaxed) <= at {
            result.unwrap();
            assert!(at > 20, "only {at} operations");
            return;
        }
        match result {
            Err(ImportError::Store(StoreError::Io { source, .. })) => {
                assert_eq!(source.kind(), io::ErrorKind::StorageFull, "operation {at}");
            }
            result => panic!("operation {at}: {result:?}"),
        }
        for entry in to.images().unwrap() {
            to.load(entry.id).unwrap().verify().unwrap();
        }
        to.records().unwrap();
        import(&to, &stream);
        for (id, memory) in history.images.iter().zip(&history.memories) {
            check(&to, *id, &[memory]);
        }
        assert_eq!(to.records().unwrap(), history.records);
    }
}

/// Set in the process that [`a_killed_import_leaves_nothing`] starts.
const STORE_VARIABLE: &str = "WSNAP_TEST_IMPORT_INTO";

#[test]
fn a_killed_import_leaves_nothing() {
    if let Some(directory) = std::env::var_os(STORE_VARIABLE) {
        let store = Store::open(directory).unwrap();
        println!("ready");
        store
            .import(io::stdin().lock(), &ImportOptions::default(), |_| ())
            .unwrap();
        return;
    }
    let mut rng = Rng::with_seed(12);
    let (_from_folder, from) = empty_store();
    let memory: Vec<u8> = std::iter::repeat_with(|| rng.u8(..))
        .take(8_000_000)
        .collect();
    let id = publish(&from, &[&memory]).unwrap();
    let stream = export_plainly(&from, &[id]);
    let (_to_folder, to) = empty_store();
    let before = contents(to.directory());
    for part in 1..6 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_import_leaves_nothing", "--nocapture"])
            .env(STORE_VARIABLE, to.directory())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // The pipe holds so little that the child has taken all but the last 64 KiB when this returns.
        stdin.write_all(&stream[..stream.len() * part / 6]).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(contents(to.directory()) == before, "part {part}");
    }
    import(&to, &stream);
    check(&to, id, &[&memory]);
}

fn golden_stream() -> (tempfile::TempDir, Store, Vec<u8>) {
    let (folder, store) = empty_store();
    let mut memory = vec![0; 200_001];
    memory[..5].copy_from_slice(b"wsnap");
    memory[200_000] = 0xff;
    let first = publish(&store, &[&memory, &vec![0; 3 << 16]]).unwrap();
    memory[70_000..80_000].fill(7);
    memory[..5].fill(0);
    let second = publish(&store, &[&memory, &vec![1; 3 << 16]]).unwrap();
    let record = |name: u8, image: ImageId, parent| {
        let mut id = wsnap_snapshots::RecordId([name; 16]);
        id.0[..8].copy_from_slice(&image.0[..8]);
        Record {
            id,
            image,
            parent,
            taken_at_ms: 1_800_000_000_000 + u64::from(name),
            trigger: "snap".to_owned(),
            name: Some("job".to_owned()),
            labels: BTreeMap::from([("round".to_owned(), name.to_string())]),
            added_bytes: 12_345,
            ran_ms: 0,
            output_bytes: None,
            rejected: None,
        }
    };
    let parent = record(1, first, None);
    let child = record(2, second, Some(parent.id));
    for record in [&parent, &child] {
        store.put_foreign_record(record).unwrap();
    }
    let options = ExportOptions {
        ancestors: true,
        names: BTreeMap::from([("job".to_owned(), second)]),
        ..ExportOptions::default()
    };
    let (stream, _) = export(&store, &[second], &options);
    (folder, store, stream)
}

#[test]
fn an_export_of_version_1_is_read_for_ever() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/export-v1.wsnap");
    let (_from_folder, from, stream) = golden_stream();
    if std::env::var_os("WSNAP_WRITE_FIXTURES").is_some() {
        fs::write(&path, &stream).unwrap();
    }
    let (_to_folder, to) = empty_store();
    let imported = import(&to, &fs::read(path).unwrap());
    assert_eq!(imported.new_images.len(), 2);
    assert_eq!(
        imported.names,
        BTreeMap::from([("job".to_owned(), imported.images[0])])
    );
    assert_eq!(to.records().unwrap(), from.records().unwrap());
    for id in imported.new_images {
        let (expected, found) = (from.load(id).unwrap(), to.load(id).unwrap());
        found.verify().unwrap();
        assert_eq!(found.manifest(), expected.manifest());
        for memory in 0..2 {
            assert!(content(&found, memory) == content(&expected, memory));
        }
    }
}
