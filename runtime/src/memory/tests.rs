//! What lies at the edges of a mapping. AddressSanitizer sees what these tests do beyond them.

use super::*;
use std::io::Write as _;

fn store() -> wasmtime::Store<()> {
    wasmtime::Store::new(&wasmtime::Engine::default(), ())
}

/// A file of pages, each full of its number, counted from one.
fn pages(count: u8) -> File {
    let mut file = tempfile::tempfile().expect("there is room");
    for page in 1..=count {
        let bytes = vec![page; page_size()];
        file.write_all(&bytes).expect("there is room");
    }
    file
}

fn bytes(mapping: &Mapping) -> Vec<u8> {
    let mut bytes = vec![0xff; mapping.size()];
    mapping.copy_out(0..mapping.size() as u64, &mut bytes);
    bytes
}

#[test]
fn what_is_not_within_the_size_is_neither_seen_nor_written() {
    let (page, store) = (page_size(), store());
    let mapping = Mapping::new(page + 3, 4 * page, page).expect("there is address space");
    assert!(mapping.copy_in(page..page + 3, &[1, 2, 3]));
    assert_eq!(mapping.view(page..page + 3, &store), Some(&[1, 2, 3][..]));
    let reversed = Range { start: 5, end: 4 };
    for range in [page..page + 4, page + 4..page + 4, reversed, 0..usize::MAX] {
        assert!(mapping.view(range.clone(), &store).is_none(), "{range:?}");
        assert!(
            !mapping.copy_in(range.clone(), &vec![9; range.len().min(9)]),
            "{range:?}"
        );
    }
    assert!(!mapping.copy_in(0..2, &[9]));
    // Behind the size there are the zeros of its last page, and behind that nothing.
    let mut buffer = vec![0xff; 3 * page];
    mapping.copy_out(page as u64..4 * page as u64, &mut buffer);
    assert_eq!(buffer[..3], [1, 2, 3]);
    assert!(buffer[3..].iter().all(|byte| *byte == 0));
    mapping.copy_out(u64::MAX - 1..u64::MAX, &mut buffer);
    assert!(buffer.iter().all(|byte| *byte == 0));
}

#[test]
fn a_mapping_grows_up_to_its_reservation_with_zeros() {
    let page = page_size();
    let mapping = Mapping::new(0, 3 * page, 0).expect("there is address space");
    for size in [1, page, page + 1, 3 * page] {
        mapping.grow_to(size).expect("it is reserved");
        assert_eq!(bytes(&mapping), vec![0; size]);
    }
    assert!(mapping.copy_in(3 * page - 1..3 * page, &[7]));
    for size in [3 * page + 1, 4 * page] {
        let refused = mapping.grow_to(size);
        assert!(matches!(refused, Err(Error::Mapping { .. })), "{refused:?}");
    }
    assert_eq!(mapping.size(), 3 * page);
}

#[test]
fn pieces_of_files_lie_where_they_are_said_to_and_writes_stay_here() {
    let (page, file) = (page_size() as u64, pages(3));
    let piece = |offset, file_offset, length| Piece {
        offset,
        file: &file,
        file_offset,
        length,
    };
    let pieces = [piece(page, 2 * page, page), piece(3 * page, 0, 2 * page)];
    let mapping = |pieces: &[Piece<'_>]| {
        Mapping::of_files(
            5 * page as usize,
            6 * page as usize,
            0,
            pieces.iter().copied(),
        )
    };
    let mapped = mapping(&pieces).expect("there is address space");
    let first = |mapping: &Mapping| -> Vec<u8> {
        let bytes = bytes(mapping);
        bytes.chunks(page as usize).map(|page| page[0]).collect()
    };
    assert_eq!(first(&mapped), [0, 3, 0, 1, 2]);
    assert!(mapped.copy_in(3 * page as usize..3 * page as usize + 1, &[9]));
    let again = mapping(&pieces).expect("there is address space");
    assert_eq!(first(&again), [0, 3, 0, 1, 2]);
    assert_eq!(first(&mapped), [0, 3, 0, 9, 2]);
}

#[test]
fn pieces_that_do_not_lie_in_the_memory_in_whole_pages_are_refused() {
    let (page, file) = (page_size() as u64, pages(1));
    let piece = |offset, file_offset, length| Piece {
        offset,
        file: &file,
        file_offset,
        length,
    };
    for pieces in [
        [piece(0, 0, page), piece(0, 0, page)],
        [piece(page, 0, page), piece(0, 0, page)],
        [piece(0, 0, page), piece(2 * page, 0, page)],
        [piece(0, 0, page), piece(page, 1, page)],
        [piece(0, 0, page), piece(page + 1, 0, page)],
        [piece(0, 0, page), piece(page, 0, page - 1)],
        [piece(0, 0, page), piece(page, 0, 0)],
        [piece(0, 0, page), piece(u64::MAX - page + 1, 0, page)],
        [piece(0, 0, page), piece(page, 0, u64::MAX - page + 1)],
    ] {
        let places = pieces.map(|piece| (piece.offset, piece.file_offset, piece.length));
        let refused = Mapping::of_files(2 * page as usize, 4 * page as usize, 0, pieces).map(drop);
        assert!(matches!(refused, Err(Error::Mapping { .. })), "{places:?}");
    }
}

#[test]
fn more_than_all_address_space_is_refused() {
    for (size, reserved, guard) in [
        (0, usize::MAX, 0),
        (usize::MAX, 0, 1),
        (0, 1 << 46, usize::MAX),
    ] {
        let refused = Mapping::new(size, reserved, guard).map(drop);
        assert!(
            matches!(refused, Err(Error::Mapping { .. })),
            "{size} {reserved} {guard}"
        );
    }
}
