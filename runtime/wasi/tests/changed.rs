//! Open files that changed before the program was resumed, and the choices whoever resumes has.

mod common;

use common::{Guest, IOVS, OUT, PATH, READ, WRITE, grants, returned};
use std::fs;
use std::path::Path;
use wsnap_wasi::{
    Change, Errno, Files, Grants, OFlags, RestoreError, SavedDescriptor, SavedState, Wasi,
};

fn restored(guest: Guest, files: Files, change: impl FnOnce(&Path)) -> Result<Guest, RestoreError> {
    let state = guest.state();
    change(guest.dir.path());
    let grants = Grants {
        files,
        ..grants(guest.dir.path())
    };
    let wasi = Wasi::restore(&state, grants)?;
    Ok(Guest { wasi, ..guest })
}

fn refused(result: Result<Guest, RestoreError>) -> RestoreError {
    match result {
        Err(error) => error,
        Ok(_) => panic!("it was restored"),
    }
}

/// A guest with open files whose names are given, each with ten bytes, at offset 10.
fn with_files(names: &[&str]) -> (Guest, Vec<u32>) {
    let mut guest = Guest::new();
    let mut open = |name: &&str| {
        let fd = guest.create(name);
        assert_eq!(guest.write(fd, b"0123456789"), Ok(10));
        fd
    };
    let descriptors = names.iter().map(&mut open).collect();
    (guest, descriptors)
}

#[test]
fn all_files_that_differ_are_named_at_once() {
    let (guest, _) = with_files(&["gone", "shorter", "same", "other"]);
    let error = refused(restored(guest, Files::RequireSame, |dir| {
        fs::remove_file(dir.join("gone")).expect("it was there");
        fs::write(dir.join("shorter"), "0123").expect("written");
        fs::write(dir.join("other"), "9876543210").expect("written");
    }));
    let message = error.to_string();
    let RestoreError::Several(problems) = error else {
        panic!("another error: {message}");
    };
    assert!(
        matches!(&problems[0], RestoreError::Missing { guest_path } if guest_path == "/w/gone")
    );
    let changes: Vec<_> = problems[1..]
        .iter()
        .map(|problem| match problem {
            RestoreError::Changed { guest_path, change } => (guest_path.as_str(), *change),
            other => panic!("another problem: {other}"),
        })
        .collect();
    let (was_bytes, is_bytes) = (10, 4);
    let size = Change::Size {
        was_bytes,
        is_bytes,
    };
    assert_eq!(
        changes,
        [("/w/shorter", size), ("/w/other", Change::Content)]
    );
    for path in ["/w/gone", "/w/shorter", "/w/other"] {
        assert!(message.contains(path), "{message}");
    }
    assert!(!message.contains("/w/same"), "{message}");
}

#[test]
fn a_missing_file_is_an_error_for_all_who_do_not_skip_it() {
    for files in [Files::RequireSame, Files::Reopen] {
        let (guest, _) = with_files(&["f"]);
        let error = refused(restored(guest, files, |dir| {
            fs::remove_file(dir.join("f")).expect("it was there");
        }));
        let message = error.to_string();
        assert!(matches!(error, RestoreError::Missing { .. }), "{message}");
        assert!(message.contains("--files=skip-missing"), "{message}");
    }
}

#[test]
fn whoever_reopens_a_shorter_file_goes_on_behind_its_end() {
    let (guest, fds) = with_files(&["f"]);
    let shortened = restored(guest, Files::Reopen, |dir| {
        fs::write(dir.join("f"), "abc").expect("written");
    });
    let mut guest = shortened.expect("restores");
    let accepted = guest.wasi.accepted_changes();
    assert_eq!(accepted.len(), 1);
    assert_eq!(
        accepted[0].to_string(),
        "the program has `/w/f` open, which has changed: it was 10 bytes long and is 3 now"
    );
    assert_eq!(guest.tell(fds[0]), Ok(10));
    assert_eq!(guest.read(fds[0], 5), Ok(vec![]));
    // Nothing was cut off or overwritten: as on any POSIX system, a hole lies between.
    assert_eq!(guest.write(fds[0], b"end"), Ok(3));
    let content = fs::read(guest.host("f")).expect("the file");
    assert_eq!(content, b"abc\0\0\0\0\0\0\0end");
}

#[test]
fn unchanged_files_are_accepted_without_a_word() {
    for files in [Files::RequireSame, Files::Reopen, Files::SkipMissing] {
        let (guest, _) = with_files(&["f"]);
        let guest = restored(guest, files, |_| {}).expect("restores");
        assert!(guest.wasi.accepted_changes().is_empty());
    }
}

#[test]
fn a_skipped_file_keeps_its_number_and_answers_that_it_is_lost() {
    let (mut guest, fds) = with_files(&["f", "kept"]);
    fs::create_dir(guest.host("d")).expect("a directory");
    let d = guest.open("d", OFlags::DIRECTORY, READ).expect("opens");
    let skipped = restored(guest, Files::SkipMissing, |dir| {
        fs::remove_file(dir.join("f")).expect("it was there");
        fs::remove_dir(dir.join("d")).expect("it was there");
    });
    let mut guest = skipped.expect("restores");
    let accepted = guest.wasi.accepted_changes();
    let changes: Vec<_> = accepted
        .iter()
        .map(|accepted| (accepted.guest_path.as_str(), accepted.change))
        .collect();
    assert_eq!(
        changes,
        [("/w/f", Change::Missing), ("/w/d", Change::Missing)]
    );
    let lost = fds[0];
    // Saved and resumed once more, with the file back in its place: the program has been told that it is lost.
    for _ in 0..2 {
        assert_eq!(guest.read(lost, 1), Err(Errno::Stale));
        assert_eq!(guest.write(lost, b"x"), Err(Errno::Stale));
        assert_eq!(guest.seek(lost, 0, 0), Err(Errno::Stale));
        let stat = returned(call!(guest.fd_filestat_get(lost, OUT)));
        assert_eq!(stat, Err(Errno::Stale));
        let stat = returned(call!(guest.fd_fdstat_get(lost, OUT)));
        assert_eq!(stat, Err(Errno::Stale));
        let sync = returned(call!(guest.fd_sync(lost)));
        assert_eq!(sync, Err(Errno::Stale));
        let inside = guest.open_at(d, "x", OFlags::CREAT, WRITE, 0);
        assert_eq!(inside, Err(Errno::Stale));
        let new = guest.create("new");
        assert!(!fds.contains(&new) && new != d, "a number was given away");
        assert_eq!(guest.close(new), Ok(()));
        fs::write(guest.host("f"), "another").expect("written");
        guest = guest.resume().expect("what is lost needs nothing");
    }
    assert!(matches!(
        guest.state().descriptors[&lost],
        SavedDescriptor::Lost(_)
    ));
    assert_eq!(guest.close(lost), Ok(()));
    assert_eq!(guest.read(lost, 1), Err(Errno::Badf));
    assert_eq!(guest.create("again"), lost);
    assert_eq!(returned(call!(guest.fd_renumber(fds[1], d))), Ok(()));
    assert_eq!(guest.tell(d), Ok(10));
}

#[test]
fn polling_a_lost_descriptor_fails_at_once() {
    let (guest, fds) = with_files(&["f"]);
    let skipped = restored(guest, Files::SkipMissing, |dir| {
        fs::remove_file(dir.join("f")).expect("it was there");
    });
    let mut guest = skipped.expect("restores");
    // One subscription to reading: user data, tag 1, descriptor.
    guest.put(IOVS, &[0; 48]);
    guest.put(IOVS, &7u64.to_le_bytes());
    guest.put(IOVS + 8, &[1]);
    guest.put(IOVS + 16, &fds[0].to_le_bytes());
    let polled = returned(call!(guest.poll_oneoff(IOVS, PATH, 1, OUT)));
    assert_eq!(polled, Err(Errno::Stale));
}

#[test]
fn a_directory_in_a_files_place_is_refused_and_can_be_skipped() {
    let replace = |dir: &Path| {
        fs::remove_file(dir.join("f")).expect("it was there");
        fs::create_dir(dir.join("f")).expect("a directory");
    };
    let (guest, _) = with_files(&["f"]);
    let error = refused(restored(guest, Files::Reopen, replace));
    assert!(matches!(error, RestoreError::Open { .. }), "{error}");
    let (guest, fds) = with_files(&["f"]);
    let skipped = restored(guest, Files::SkipMissing, replace);
    let mut guest = skipped.expect("restores");
    assert_eq!(guest.wasi.accepted_changes()[0].change, Change::Unusable);
    assert_eq!(guest.read(fds[0], 1), Err(Errno::Stale));
}

#[test]
fn a_directory_that_is_not_granted_is_never_skipped() {
    let (guest, _) = with_files(&["f"]);
    let grants = Grants {
        files: Files::SkipMissing,
        streams: common::closed_streams(),
        ..Grants::default()
    };
    match Wasi::restore(&guest.state(), grants).map(drop) {
        Err(RestoreError::NotGranted { guest_path }) => assert_eq!(guest_path, "/w"),
        other => panic!("another outcome: {other:?}"),
    }
}

/// Each accepted change was looked for among all before it.
#[test]
fn as_many_missing_files_as_there_can_be_descriptors_are_skipped() {
    let (guest, fds) = with_files(&["f"]);
    let mut state = guest.state();
    let SavedDescriptor::File(saved) = state.descriptors[&fds[0]].clone() else {
        panic!("the file is not open");
    };
    state.descriptors.remove(&fds[0]);
    let others = state.descriptors.len();
    for fd in 0..1 << 16 {
        let mut missing = saved.clone();
        missing.path = format!("missing/with/quite/a/long/path/to/compare/{fd:05}");
        let missing = SavedDescriptor::File(missing);
        state.descriptors.entry(fd).or_insert(missing);
    }
    let state = SavedState::decode(&state.encode()).expect("nothing is wrong with it");
    let grants = Grants {
        files: Files::SkipMissing,
        ..grants(guest.dir.path())
    };
    let wasi = Wasi::restore(&state, grants).expect("what is missing is skipped");
    assert_eq!(wasi.accepted_changes().len() + others, 1 << 16);
}
