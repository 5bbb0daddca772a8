//! The manifest's encoding: one sequence of bytes for each state, and nothing else is read.

mod common;

use common::any_manifest;
use fastrand::Rng;
use wsnap_snapshots::{
    DecodeError, Elements, Exception, Frame, FrameState, GlobalState, ImageId, Invocation,
    Manifest, MemoryState, ModuleHash, Phase, TableState, Value,
};

/// Where the fields of [`small`] start.
const DETERMINISTIC: usize = 44;
const PHASE: usize = 45;
const EXPORT: usize = 46;
const ARGUMENTS: usize = 60;
const MEMORIES: usize = 68;

fn small() -> Manifest {
    Manifest::new(ModuleHash::of(b"module"), Invocation::export("_start"))
}

fn with(change: impl FnOnce(&mut Manifest)) -> Manifest {
    let mut manifest = small();
    change(&mut manifest);
    manifest
}

fn refusal(bytes: &[u8]) -> DecodeError {
    Manifest::decode(bytes).expect_err("these bytes must be refused")
}

fn refusal_of(change: impl FnOnce(&mut Manifest)) -> DecodeError {
    refusal(&with(change).encode())
}

fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut encoded = small().encode();
    encoded[at..at + bytes.len()].copy_from_slice(bytes);
    encoded
}

#[test]
fn what_was_encoded_is_decoded_again() {
    let mut rng = Rng::with_seed(1);
    for _ in 0..2000 {
        let manifest = any_manifest(&mut rng);
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes).as_ref(), Ok(&manifest));
        assert_eq!(manifest.id(), ImageId::of(&bytes));
    }
}

#[test]
fn a_flipped_bit_is_refused_or_is_the_encoding_of_another_state() {
    let mut rng = Rng::with_seed(2);
    for _ in 0..30 {
        let manifest = any_manifest(&mut rng);
        let bytes = manifest.encode();
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            if let Ok(other) = Manifest::decode(&damaged) {
                assert_eq!(other.encode(), damaged, "two encodings of one state");
                assert_ne!(other.id(), manifest.id());
            }
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    let mut rng = Rng::with_seed(3);
    for _ in 0..100 {
        let bytes = any_manifest(&mut rng).encode();
        for len in 0..bytes.len() {
            match refusal(&bytes[..len]) {
                DecodeError::Truncated { offset, .. } | DecodeError::Count { offset, .. } => {
                    assert!(offset <= len)
                }
                DecodeError::NotThisFormat { format: "image" } => assert!(len < 8),
                other => panic!("truncated to {len} bytes: {other}"),
            }
        }
    }
}

#[test]
fn random_bytes_behind_a_header_never_panic() {
    let mut rng = Rng::with_seed(4);
    let header = &small().encode()[..DETERMINISTIC];
    for _ in 0..20_000 {
        let mut bytes = header.to_vec();
        // Small numbers, which get further than random ones.
        bytes.extend(
            (0..rng.usize(0..200)).map(|_| if rng.u8(..) < 200 { 0 } else { rng.u8(0..12) }),
        );
        if let Ok(manifest) = Manifest::decode(&bytes) {
            assert_eq!(manifest.encode(), bytes);
        }
    }
}

#[test]
fn fields_stand_where_format_md_says() {
    let bytes = small().encode();
    let mut expected = b"WSNAPIMG\x01\0\0\0".to_vec();
    expected.extend(ModuleHash::of(b"module").0);
    expected.extend(b"\0\x01\x06\0\0\0\0\0\0\0_start");
    assert_eq!(expected.len(), ARGUMENTS);
    // Nine empty lists: arguments, memories, globals, tables, two kinds of segments, exceptions, frames, host state.
    expected.extend([0; 9 * 8]);
    assert_eq!(bytes, expected);
}

#[test]
fn foreign_bytes_and_other_versions_are_told_apart() {
    assert_eq!(
        refusal(b"\0asm\x01\0\0\0"),
        DecodeError::NotThisFormat { format: "image" }
    );
    let error = refusal(&patched(8, &[2]));
    assert_eq!(
        error,
        DecodeError::Version {
            format: "image",
            found: 2,
            supported: 1
        }
    );
    assert_eq!(
        error.to_string(),
        "this image has format version 2, but this build of wsnap reads version 1"
    );
}

#[test]
fn unknown_alternatives_are_refused() {
    for (at, what) in [(DETERMINISTIC, "determinism"), (PHASE, "phase")] {
        assert_eq!(
            refusal(&patched(at, &[2])),
            DecodeError::Discriminant {
                what,
                offset: at,
                found: 2
            }
        );
    }
    let mut bytes =
        with(|manifest| manifest.invocation.arguments.push(Value::ExternRefNull)).encode();
    bytes[ARGUMENTS + 8] = 10;
    assert_eq!(
        refusal(&bytes),
        DecodeError::Discriminant {
            what: "value kind",
            offset: ARGUMENTS + 8,
            found: 10
        }
    );
}

#[test]
fn a_name_that_is_not_utf_8_is_refused() {
    let error = refusal(&patched(EXPORT + 8, &[0xff]));
    assert_eq!(
        error,
        DecodeError::NotText {
            what: "export name",
            offset: EXPORT + 8
        }
    );
}

#[test]
fn a_count_beyond_the_input_is_refused_before_anything_is_allocated() {
    for count in [9, u64::MAX / 41, u64::MAX] {
        let error = refusal(&patched(MEMORIES, &count.to_le_bytes()));
        assert_eq!(
            error,
            DecodeError::Count {
                what: "memories",
                offset: MEMORIES,
                found: count,
                most: 1
            }
        );
    }
    let error = refusal(&patched(EXPORT, &u64::MAX.to_le_bytes()));
    assert_eq!(
        error,
        DecodeError::Count {
            what: "export name",
            offset: EXPORT,
            found: u64::MAX,
            most: 78
        }
    );
}

#[test]
fn lists_out_of_order_are_refused() {
    let global = |index| GlobalState {
        index,
        value: Value::I32(0),
    };
    let table = |index| TableState {
        index,
        elements: Elements::default(),
    };
    let frame = |locals| Frame {
        function: 0,
        offset: 9,
        state: FrameState::Next,
        locals,
        operands: Vec::new(),
    };
    let cases = [
        (
            "globals",
            with(|manifest| manifest.globals = vec![global(2), global(1)]),
        ),
        (
            "globals",
            with(|manifest| manifest.globals = vec![global(1), global(1)]),
        ),
        (
            "tables",
            with(|manifest| manifest.tables = vec![table(1), table(0)]),
        ),
        (
            "dropped data segments",
            with(|manifest| manifest.dropped_data = vec![5, 5]),
        ),
        (
            "dropped element segments",
            with(|manifest| manifest.dropped_elements = vec![5, 4]),
        ),
        (
            "locals",
            with(|manifest| {
                manifest.frames = vec![frame(vec![(1, Value::I32(0)), (0, Value::I32(0))])]
            }),
        ),
    ];
    for (list, manifest) in cases {
        match refusal(&manifest.encode()) {
            DecodeError::Unordered { what, .. } => assert_eq!(what, list),
            other => panic!("{list}: {other}"),
        }
    }
}

#[test]
fn host_sections_out_of_order_are_refused() {
    let mut bytes =
        with(|manifest| manifest.host = [("a".into(), vec![]), ("b".into(), vec![])].into())
            .encode();
    let last = bytes.len() - 9;
    assert_eq!(bytes[last], b'b');
    bytes[last] = b'a';
    assert_eq!(
        refusal(&bytes),
        DecodeError::Unordered {
            what: "host sections",
            offset: last - 8
        }
    );
}

#[test]
fn runs_of_table_elements_that_could_be_fewer_are_refused() {
    let mut elements = Elements::default();
    elements.push_run(3, Value::FuncRef(Some(0)));
    elements.push_run(3, Value::FuncRef(Some(1)));
    let bytes = with(|manifest| manifest.tables.push(TableState { index: 0, elements })).encode();
    // The first run starts behind the header's fields up to the globals, two counts and the table's index.
    let first = MEMORIES + 3 * 8 + 4 + 8;
    let second = first + 8 + 1 + 4;
    assert_eq!(bytes[first], 3);

    let mut empty = bytes.clone();
    empty[first] = 0;
    assert_eq!(refusal(&empty), DecodeError::NotMinimal { offset: first });
    let mut equal = bytes.clone();
    equal[second + 9] = 0;
    assert_eq!(refusal(&equal), DecodeError::NotMinimal { offset: second });
    let mut long = bytes;
    long[first..first + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    let limit = 10_000_000;
    assert_eq!(
        refusal(&long),
        DecodeError::Limit {
            what: "table size",
            offset: first,
            found: u64::MAX,
            limit
        }
    );
}

#[test]
fn a_table_may_have_ten_million_elements_but_no_more() {
    let table = |length: u64| {
        let mut elements = Elements::default();
        elements.push_run(1, Value::FuncRef(Some(1)));
        elements.push_run(length - 1, Value::FuncRef(None));
        with(|manifest| manifest.tables.push(TableState { index: 0, elements })).encode()
    };
    assert_eq!(
        Manifest::decode(&table(10_000_000)).unwrap().tables[0]
            .elements
            .len(),
        10_000_000
    );
    match refusal(&table(10_000_001)) {
        DecodeError::Limit {
            what: "table size",
            found,
            limit,
            ..
        } => assert_eq!((found, limit), (10_000_001, 10_000_000)),
        other => panic!("{other}"),
    }
}

#[test]
fn memories_may_have_48_bits_of_bytes_but_no_more() {
    let memory = |pages, page_size_log2| {
        with(|manifest| {
            manifest
                .memories
                .push(MemoryState::draft(pages, page_size_log2))
        })
    };
    for (pages, page_size_log2) in [(1 << 32, 16), (1 << 48, 0)] {
        let largest = memory(pages, page_size_log2);
        assert_eq!(Manifest::decode(&largest.encode()), Ok(largest));
        let offset = MEMORIES + 8;
        for found in [pages + 1, u64::MAX] {
            let error = refusal(&memory(found, page_size_log2).encode());
            assert_eq!(
                error,
                DecodeError::Limit {
                    what: "memory size",
                    offset,
                    found,
                    limit: pages
                }
            );
        }
    }
    let error = refusal(&memory(1, 12).encode());
    assert_eq!(
        error,
        DecodeError::Discriminant {
            what: "memory page size",
            offset: MEMORIES + 16,
            found: 12
        }
    );
}

#[test]
fn a_reference_to_an_exception_that_is_not_there_is_refused() {
    let error = refusal_of(|manifest| {
        manifest.exceptions.push(Exception {
            tag: 0,
            fields: Vec::new(),
        });
        manifest.invocation.arguments = vec![Value::ExnRef(Some(0)), Value::ExnRef(Some(1))];
    });
    assert_eq!(
        error,
        DecodeError::DanglingException {
            offset: ARGUMENTS + 8 + 5,
            index: 1,
            count: 1
        }
    );
}

#[test]
fn a_host_call_with_a_code_offset_is_refused() {
    let error = refusal_of(|manifest| {
        let state = FrameState::HostCall;
        manifest.frames.push(Frame {
            function: 0,
            offset: 1,
            state,
            locals: Vec::new(),
            operands: Vec::new(),
        });
    });
    assert_eq!(
        error,
        DecodeError::HostCallOffset {
            offset: MEMORIES + 7 * 8
        }
    );
}

#[test]
fn bytes_behind_the_end_are_refused() {
    let mut bytes = small().encode();
    bytes.push(0);
    assert_eq!(
        refusal(&bytes),
        DecodeError::TrailingBytes {
            offset: bytes.len() - 1
        }
    );
}

#[test]
fn elements_are_runs_however_they_are_made() {
    let mut pushed = Elements::default();
    pushed.push_run(2, Value::FuncRef(None));
    pushed.push_run(0, Value::FuncRef(Some(9)));
    pushed.push_run(1, Value::FuncRef(None));
    pushed.push_run(1, Value::FuncRef(Some(9)));
    let collected: Elements = [
        Value::FuncRef(None),
        Value::FuncRef(None),
        Value::FuncRef(None),
        Value::FuncRef(Some(9)),
    ]
    .into_iter()
    .collect();
    assert_eq!(pushed, collected);
    assert_eq!(pushed.len(), 4);
    assert_eq!(pushed.iter().collect::<Elements>(), pushed);
}

#[test]
fn the_golden_manifest_of_version_1_is_read_for_ever() {
    let golden = include_bytes!("fixtures/manifest-v1.bin");
    let manifest = Manifest::decode(golden).unwrap();
    assert_eq!(manifest, golden_manifest());
    assert_eq!(manifest.encode(), golden);
    assert_eq!(
        manifest.id().to_string(),
        "cb40420b7299b2f4fe41d8f07f5ae919f8400518b11d47bbb3c7d5441ea5b7c4"
    );
}

/// Every kind of field and value.
fn golden_manifest() -> Manifest {
    let mut table = Elements::default();
    table.push_run(1000, Value::FuncRef(None));
    table.push_run(1, Value::FuncRef(Some(17)));
    Manifest {
        module: ModuleHash::of(b"\0asm\x01\0\0\0"),
        deterministic: true,
        invocation: Invocation {
            phase: Phase::Start,
            export: "größe".into(),
            arguments: vec![
                Value::I32(-2),
                Value::I64(i64::MIN),
                Value::F32(0x7fa0_0001),
                Value::F64(0xfff8_0000_0000_0000),
                Value::V128(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100),
                Value::FuncRef(None),
                Value::FuncRef(Some(3)),
                Value::ExternRefNull,
                Value::ExnRef(None),
                Value::ExnRef(Some(0)),
            ],
        },
        memories: vec![MemoryState::draft(2, 16), MemoryState::draft(70_001, 0)],
        globals: vec![
            GlobalState {
                index: 0,
                value: Value::I32(1 << 20),
            },
            GlobalState {
                index: 9,
                value: Value::I64(-1),
            },
        ],
        tables: vec![TableState {
            index: 1,
            elements: table,
        }],
        dropped_data: vec![0, 2],
        dropped_elements: vec![1],
        exceptions: vec![Exception {
            tag: 4,
            fields: vec![Value::I32(7), Value::ExnRef(None)],
        }],
        frames: vec![
            Frame {
                function: 5,
                offset: 1234,
                state: FrameState::Calling,
                locals: vec![(0, Value::I32(1)), (7, Value::F32(0x3f80_0000))],
                operands: vec![Value::I64(2)],
            },
            Frame {
                function: 6,
                offset: 99,
                state: FrameState::Next,
                locals: vec![],
                operands: vec![],
            },
            Frame {
                function: 0,
                offset: 0,
                state: FrameState::HostCall,
                locals: vec![],
                operands: vec![Value::I32(1), Value::I32(2)],
            },
        ],
        host: [
            ("clock".into(), vec![1, 2, 3]),
            ("wasi_snapshot_preview1".into(), vec![]),
        ]
        .into(),
    }
}
