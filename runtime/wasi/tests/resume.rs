//! Saving a program's host state and going on with it.

mod common;

use common::{
    DATA, DIR, Guest, IOVS, OUT, PATH, PATH2, READ, WRITE, closed_streams, grants, returned,
};
use std::fs;
use std::io::{Write as _, pipe};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use wsnap_wasi::{
    Change, Errno, FdFlags, FileType, Files, Grants, OFlags, Preopen, RestoreError,
    SavedDescriptor, SavedState, StandardStreams, Stdio, Wasi,
};

/// Files above this are not hashed.
const LARGE: usize = 100_000;

fn resumed(guest: Guest) -> Guest {
    guest.resume().expect("the guest can be resumed")
}

#[test]
fn open_files_go_on_at_their_offsets_under_their_numbers() {
    let mut guest = Guest::new();
    let (a, b) = (guest.create("a"), guest.create("b"));
    assert_eq!(guest.write(a, b"first "), Ok(6));
    assert_eq!(guest.write(b, b"0123456789"), Ok(10));
    assert_eq!(guest.seek(b, 4, 0), Ok(4));
    let mut guest = resumed(guest);
    assert_eq!(guest.write(a, b"second"), Ok(6));
    assert_eq!(guest.read(b, 3), Ok(b"456".to_vec()));
    assert_eq!(
        fs::read(guest.host("a")).expect("the file"),
        b"first second"
    );
    assert_eq!(guest.create("c"), 2);
}

#[test]
fn flags_survive() {
    let mut guest = Guest::new();
    let flags = FdFlags::APPEND | FdFlags::NONBLOCK;
    let fd = guest.open_at(DIR, "log", OFlags::CREAT, WRITE, flags.bits().into());
    let fd = fd.expect("opens");
    assert_eq!(guest.write(fd, b"one "), Ok(4));
    let mut guest = resumed(guest);
    assert_eq!(guest.seek(fd, 0, 0), Ok(0));
    assert_eq!(guest.write(fd, b"two"), Ok(3));
    assert_eq!(fs::read(guest.host("log")).expect("the file"), b"one two");
    assert_eq!(returned(call!(guest.fd_fdstat_get(fd, OUT))), Ok(()));
    assert_eq!(guest.u32(OUT) >> 16, u32::from(flags.bits()));
}

#[test]
fn a_file_opened_to_be_created_emptied_and_new_is_only_opened_on_resume() {
    let mut guest = Guest::new();
    let all = OFlags::CREAT | OFlags::EXCL;
    let new = guest.open("new", all, WRITE).expect("opens");
    let emptied = guest.open("emptied", OFlags::CREAT | OFlags::TRUNC, WRITE);
    let emptied = emptied.expect("opens");
    assert_eq!(guest.write(new, b"kept"), Ok(4));
    assert_eq!(guest.write(emptied, b"kept too"), Ok(8));
    let guest = resumed(guest);
    assert_eq!(fs::read(guest.host("new")).expect("the file"), b"kept");
    assert_eq!(
        fs::read(guest.host("emptied")).expect("the file"),
        b"kept too"
    );
}

#[test]
fn directories_and_files_below_them_are_opened_again() {
    let mut guest = Guest::new();
    fs::create_dir_all(guest.host("d/e")).expect("directories");
    let d = guest.open("d", OFlags::DIRECTORY, READ).expect("opens");
    let e = guest
        .open_at(d, "e", OFlags::DIRECTORY, READ, 0)
        .expect("opens");
    let file = guest
        .open_at(e, "f", OFlags::CREAT, READ | WRITE, 0)
        .expect("opens");
    assert_eq!(guest.write(file, b"deep"), Ok(4));
    let state = guest.state();
    match &state.descriptors[&file] {
        SavedDescriptor::File(saved) => {
            assert_eq!(state.guest_path(saved.preopen, &saved.path), "/w/d/e/f");
        }
        other => panic!("no file: {other:?}"),
    }
    let mut guest = resumed(guest);
    assert_eq!(guest.tell(file), Ok(4));
    assert!(guest.open_at(e, "f", OFlags::empty(), READ, 0).is_ok());
    assert_eq!(
        guest.open_at(d, "..", OFlags::empty(), READ, 0),
        Err(Errno::Perm)
    );
}

#[test]
fn what_was_closed_stays_closed_and_what_was_moved_stays_there() {
    let (reader, writer) = pipe().expect("a pipe");
    let mut guest = Guest::with_streams(StandardStreams {
        stdin: Stdio::Descriptor(reader.into()),
        stdout: Stdio::Descriptor(writer.into()),
        stderr: Stdio::Closed,
    });
    let fd = guest.create("f");
    assert_eq!(guest.close(0), Ok(()));
    assert_eq!(returned(call!(guest.fd_renumber(1, fd))), Ok(()));
    assert_eq!(guest.close(DIR), Ok(()));
    let state = guest.state();
    let (reader, mut writer) = pipe().expect("a pipe");
    writer.write_all(b"not for the guest").expect("room");
    let mut output = tempfile::tempfile().expect("a file");
    let streams = StandardStreams {
        stdin: Stdio::Descriptor(reader.into()),
        stdout: Stdio::Descriptor(output.try_clone().expect("a copy").into()),
        stderr: Stdio::Closed,
    };
    let grants = Grants {
        streams,
        ..Grants::default()
    };
    let wasi = Wasi::restore(&state, grants).expect("nothing needs a directory");
    let mut guest = Guest { wasi, ..guest };
    assert_eq!(guest.read(0, 9), Err(Errno::Badf));
    assert_eq!(guest.write(1, b"x"), Err(Errno::Badf));
    assert_eq!(guest.write(fd, b"to whoever resumes"), Ok(18));
    let mut text = String::new();
    std::io::Seek::rewind(&mut output).expect("a file");
    std::io::Read::read_to_string(&mut output, &mut text).expect("text");
    assert_eq!(text, "to whoever resumes");
    assert_eq!(call!(guest.fd_prestat_get(DIR, OUT)), Ok(Errno::Badf));
}

#[test]
fn arguments_and_environment_survive_and_variables_can_be_replaced() {
    let guest = Guest::new();
    let state = guest.state();
    let variables = [("HOME", "/elsewhere"), ("NEW", "1")];
    let env = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let grants = Grants {
        env: env.to_vec(),
        ..grants(guest.dir.path())
    };
    let wasi = Wasi::restore(&state, grants).expect("restores");
    let guest = Guest { wasi, ..guest };
    let state = guest.state();
    assert_eq!(state.args, [b"program".to_vec()]);
    assert_eq!(state.env, [b"HOME=/elsewhere".to_vec(), b"NEW=1".to_vec()]);
}

#[test]
fn equal_histories_have_equal_bytes_wherever_they_ran() {
    let history = || {
        let mut guest = Guest::deterministic(7);
        let fd = guest.create("small");
        assert_eq!(guest.write(fd, b"content"), Ok(7));
        let large = guest.create("large");
        assert_eq!(guest.write(large, &[1; LARGE]), Ok(LARGE as u32));
        guest.monotonic_ns();
        guest.random::<5>();
        // Files of equal content, written at different times.
        std::thread::sleep(Duration::from_millis(5));
        guest
    };
    let uninterrupted = history();
    let other = resumed(resumed(history()));
    let bytes = |guest: &Guest| guest.wasi.save().expect("saves");
    assert_eq!(bytes(&uninterrupted), bytes(&other));
    let (mut a, mut b) = (uninterrupted, other);
    assert_eq!(a.random::<9>(), b.random::<9>());
    assert_eq!(a.monotonic_ns(), b.monotonic_ns());
    assert_eq!(bytes(&a), bytes(&b));
}

#[test]
fn two_resumes_of_one_state_draw_different_random_bytes() {
    let guest = Guest::new();
    let state = guest.state();
    let draw = || {
        let wasi = Wasi::restore(&state, grants(guest.dir.path())).expect("restores");
        let mut resumed = Guest {
            wasi,
            memory: guest.memory.clone(),
            dir: TempDir::new().expect("a directory"),
        };
        resumed.random::<16>()
    };
    assert_ne!(draw(), draw());
}

#[test]
fn a_directory_that_is_not_granted_is_named() {
    let guest = Guest::new();
    let state = guest.state();
    let grants = Grants {
        streams: closed_streams(),
        ..Grants::default()
    };
    match Wasi::restore(&state, grants) {
        Err(error @ RestoreError::NotGranted { .. }) => assert_eq!(
            error.to_string(),
            "the program uses the directory `/w`, which is not granted: grant it with --dir HOST::/w"
        ),
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it was restored"),
    }
}

#[test]
fn a_missing_file_is_named() {
    let mut guest = Guest::new();
    guest.create("f");
    let state = guest.state();
    fs::remove_file(guest.host("f")).expect("it was there");
    match Wasi::restore(&state, grants(guest.dir.path())) {
        Err(RestoreError::Missing { guest_path }) => assert_eq!(guest_path, "/w/f"),
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it was restored"),
    }
}

/// Restores with the file `f` as `change` leaves it.
fn after(
    content: &[u8],
    policy: Files,
    change: impl FnOnce(&std::path::Path),
) -> Result<Wasi, RestoreError> {
    let mut guest = Guest::new();
    let fd = guest.create("f");
    guest.write(fd, content).expect("room");
    let state = guest.state();
    change(&guest.host("f"));
    Wasi::restore(
        &state,
        Grants {
            files: policy,
            ..grants(guest.dir.path())
        },
    )
}

fn change_found(restored: Result<Wasi, RestoreError>) -> Change {
    match restored {
        Err(RestoreError::Changed { guest_path, change }) => {
            assert_eq!(guest_path, "/w/f");
            change
        }
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it was restored"),
    }
}

fn touch(path: &std::path::Path) {
    let file = fs::File::options().write(true).open(path).expect("opens");
    file.set_modified(SystemTime::UNIX_EPOCH)
        .expect("its time can be set");
}

#[test]
fn a_changed_file_is_refused_and_the_difference_told() {
    let require = Files::RequireSame;
    let shorter = after(b"12345", require, |path| {
        fs::write(path, "123").expect("written")
    });
    let size = Change::Size {
        was_bytes: 5,
        is_bytes: 3,
    };
    assert_eq!(change_found(shorter), size);
    let other = after(b"12345", require, |path| {
        fs::write(path, "54321").expect("written")
    });
    assert_eq!(change_found(other), Change::Content);
    let later = after(&[1; LARGE], require, touch);
    assert_eq!(change_found(later), Change::Modified);
    let replaced = after(b"", require, |path| {
        fs::remove_file(path).expect("it was there");
        fs::create_dir(path).expect("a directory");
    });
    match replaced {
        Err(RestoreError::Open { guest_path, .. }) => assert_eq!(guest_path, "/w/f"),
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it was restored"),
    }
}

#[test]
fn a_small_file_may_be_copied_since_because_its_content_counts() {
    assert!(after(b"12345", Files::RequireSame, touch).is_ok());
}

#[test]
fn a_changed_file_is_reopened_if_that_is_wanted() {
    let reopened = after(b"12345", Files::Reopen, |path| {
        fs::write(path, "other").expect("written")
    });
    assert!(reopened.is_ok());
    let mut guest = Guest::new();
    let fd = guest.open(".", OFlags::empty(), READ).expect("opens");
    let mut state = guest.state();
    let file = Guest::state(&{
        let mut other = Guest::new();
        other.create("x");
        other
    });
    // A directory cannot stand for a file, whatever is wanted.
    let mut saved = file.descriptors[&0].clone();
    if let SavedDescriptor::File(saved) = &mut saved {
        saved.path = ".".to_owned();
        saved.access.write = false;
    }
    state.descriptors.insert(fd, saved);
    let grants = Grants {
        files: Files::Reopen,
        ..grants(guest.dir.path())
    };
    match Wasi::restore(&state, grants) {
        Err(RestoreError::Changed { change, .. }) => {
            let (was, is) = (FileType::RegularFile, FileType::Directory);
            assert_eq!(change, Change::Type { was, is });
        }
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it was restored"),
    }
}

#[test]
fn files_follow_the_renames_that_the_program_makes() {
    let mut guest = Guest::new();
    fs::create_dir(guest.host("d")).expect("a directory");
    let fd = guest
        .open("d/f", OFlags::CREAT, READ | WRITE)
        .expect("opens");
    assert_eq!(guest.write(fd, b"text"), Ok(4));
    for (old, new) in [("d", "e"), ("e/f", "g")] {
        let (old, new) = (
            guest.put(PATH, old.as_bytes()),
            guest.put(PATH2, new.as_bytes()),
        );
        let renamed = call!(guest.path_rename(DIR, PATH, old, DIR, PATH2, new));
        assert_eq!(returned(renamed), Ok(()));
    }
    let mut guest = resumed(guest);
    guest.one_buffer(4);
    assert_eq!(returned(call!(guest.fd_pread(fd, IOVS, 1, 0, OUT))), Ok(()));
    assert_eq!(guest.bytes(DATA, 4), b"text");
}

#[test]
fn a_state_from_elsewhere_cannot_open_what_lies_outside() {
    let mut guest = Guest::new();
    guest.create("f");
    let state = guest.state();
    for path in ["/etc/passwd", "../outside", "..", ""] {
        let mut forged = state.clone();
        for saved in forged.descriptors.values_mut() {
            if let SavedDescriptor::File(file) = saved {
                file.path = path.to_owned();
            }
        }
        let grants = Grants {
            files: Files::Reopen,
            ..grants(guest.dir.path())
        };
        match Wasi::restore(&forged, grants) {
            Err(RestoreError::Open { .. } | RestoreError::Missing { .. }) => {}
            Err(other) => panic!("another error for `{path}`: {other}"),
            Ok(_) => panic!("`{path}` was opened"),
        }
    }
}

#[test]
fn a_state_that_names_a_directory_it_does_not_list_is_refused() {
    let mut state = Guest::new().state();
    state.preopens = vec![];
    let error = Wasi::restore(&state, Grants::default()).map(drop);
    match error {
        Err(RestoreError::NoSuchPreopen { preopen }) => assert_eq!(preopen, 0),
        other => panic!("another outcome: {other:?}"),
    }
    let fd = SavedDescriptor::Stream(wsnap_wasi::Standard::Input);
    state.descriptors = [(u32::MAX, fd)].into();
    match Wasi::restore(&state, Grants::default()).map(drop) {
        Err(RestoreError::Descriptor { fd }) => assert_eq!(fd, u32::MAX),
        other => panic!("another outcome: {other:?}"),
    }
}

#[test]
fn granted_directories_keep_their_numbers_whatever_the_order_of_the_grants() {
    let second = TempDir::new().expect("a directory");
    fs::write(second.path().join("here"), "").expect("written");
    let mut guest = Guest::with(|config| {
        let second = Preopen::open(second.path(), "/second").expect("exists");
        config.preopens.push(second);
    });
    let state: SavedState = guest.state();
    let mut grants = grants(guest.dir.path());
    let other = Preopen::open(second.path(), "/second/").expect("exists");
    grants.preopens.insert(0, other);
    guest.wasi = Wasi::restore(&state, grants).expect("restores");
    assert!(guest.open_at(4, "here", OFlags::empty(), READ, 0).is_ok());
    assert_eq!(
        guest.open_at(3, "here", OFlags::empty(), READ, 0),
        Err(Errno::Noent)
    );
}

#[test]
fn a_refused_resume_says_what_to_do() {
    let mut guest = Guest::new();
    let fd = guest.create("f");
    guest.write(fd, b"12345").expect("room");
    let state = guest.state();
    fs::write(guest.host("f"), "123").expect("written");
    let error = Wasi::restore(&state, grants(guest.dir.path())).map(drop);
    let message = error.map_err(|error| error.to_string());
    let expected = "the program has `/w/f` open, which has changed: it was 5 bytes long and is 3 now; \
                    put the old one back, or resume with --files=reopen to go on with what is there";
    assert_eq!(message, Err(expected.to_owned()));
}
