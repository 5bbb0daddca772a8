//! Which pages of a memory were written, as the kernel knows it.
//!
//! Memories are private mappings: a page that was written has become anonymous memory of this process. That is all that
//! the first snapshot needs to know, and nothing has to be prepared for it. Pages stay anonymous, however, so for a
//! program that goes on after a snapshot the kernel is asked to note writes from then on: asynchronous write protection
//! (`userfaultfd`, Linux 6.7), under which the first write to a page costs a short fault and nobody has to handle it.
//! Where the kernel does not have it, every snapshot finds all anonymous pages, and the store compares them with the
//! image before.

#![expect(
    unsafe_code,
    reason = "asks the kernel about mappings by its own calls"
)]

use crate::memory::{Mapping, page_size};
use crate::ranges::Ranges;
use linux_raw_sys::general as raw;
use rustix::fd::OwnedFd;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Updater, ioctl, opcode};
use rustix::mm::{UserfaultfdFlags, userfaultfd};
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// How many stretches of pages one call of the kernel tells of at most.
const REGIONS_PER_SCAN: usize = 4096;

/// How the pages of one memory are watched.
#[derive(Debug, Default)]
pub(crate) enum Watch {
    /// Nothing has been prepared: all anonymous pages count as written.
    #[default]
    Idle,
    /// The kernel notes writes. The descriptor keeps it at that.
    Armed(#[expect(dead_code, reason = "held for what closing it would end")] OwnedFd),
    /// The kernel cannot note writes.
    Unable,
}

impl Watch {
    /// Makes the kernel note which pages are written from the next scan on, if it can.
    pub fn arm(&mut self, mapping: &Mapping) {
        if matches!(self, Self::Idle) {
            *self = register(mapping).map_or(Self::Unable, Self::Armed);
        }
    }

    /// Whether a scan finds only what was written since the one before.
    pub fn is_armed(&self) -> bool {
        matches!(self, Self::Armed(_))
    }

    /// The pages that were written since the last scan, or, if this is the first one or the kernel cannot note writes, all
    /// that were ever written. Pages that the guest writes at the same time may be in this result or in the next one. Some
    /// pages can be among them that were only read, or lie near others.
    ///
    /// What cannot be found out counts as written.
    pub fn scan(&self, mapping: &Mapping) -> Ranges {
        let found = match self {
            Self::Armed(_) => scan(mapping, &WRITTEN),
            Self::Idle | Self::Unable => scan(mapping, &PRIVATE).or_else(|_| read_pagemap(mapping)),
        };
        let size = (mapping.size() as u64).next_multiple_of(page_size() as u64);
        found
            .unwrap_or_else(|_| {
                let mut all = Ranges::default();
                all.push(0..size);
                all
            })
            .below(size)
    }
}

/// The pages of a mapping that are mapped, because the guest has touched them or because they lie near such pages: the kernel
/// maps what it has in its page cache around a page that is read, unless the mapping is armed.
pub(crate) fn present(mapping: &Mapping) -> io::Result<Ranges> {
    scan(mapping, &PRESENT)
}

/// Registers all of a mapping's address space, so that memory that it grows by is watched as well.
fn register(mapping: &Mapping) -> io::Result<OwnedFd> {
    const API: Opcode = opcode::read_write::<raw::uffdio_api>(0xaa, 0x3f);
    const REGISTER: Opcode = opcode::read_write::<raw::uffdio_register>(0xaa, 0x00);
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    // SAFETY: the descriptor is used only for asynchronous write protection, which never leaves a fault to anybody and
    // never changes what memory holds. Faults are resolved in the kernel, so the restriction to user mode is harmless.
    let descriptor = unsafe {
        userfaultfd(flags | UserfaultfdFlags::from_bits_retain(USER_MODE_ONLY))
            .or_else(|_| userfaultfd(flags))?
    };
    let mut api = raw::uffdio_api {
        api: raw::UFFD_API.into(),
        features: raw::UFFD_FEATURE_WP_ASYNC.into(),
        ioctls: 0,
    };
    // SAFETY: the call reads and writes this structure, which has the kernel's layout.
    unsafe { ioctl(&descriptor, Updater::<API, _>::new(&mut api))? };
    let mut register = raw::uffdio_register {
        range: raw::uffdio_range {
            start: mapping.base() as u64,
            len: mapping.capacity() as u64,
        },
        mode: raw::UFFDIO_REGISTER_MODE_WP.into(),
        ioctls: 0,
    };
    // SAFETY: as above; the range is all of the reservation that the guest can ever access, which the mapping owns.
    unsafe { ioctl(&descriptor, Updater::<REGISTER, _>::new(&mut register))? };
    Ok(descriptor)
}

/// `UFFD_USER_MODE_ONLY`: what processes without privileges may ask for.
const USER_MODE_ONLY: u32 = 1;

/// What of `written` is anonymous, so that it can have been written; all of it if nobody knows.
pub(crate) fn private(mapping: &Mapping, written: Ranges) -> Ranges {
    match scan(mapping, &PRIVATE).or_else(|_| read_pagemap(mapping)) {
        Ok(private) => written.intersection(&private),
        Err(_) => written,
    }
}

/// What a scan looks for: pages that have all categories of the mask, and one of `any_of` if there are any.
struct Search {
    flags: u64,
    /// The categories that a page must not have, of those in the mask.
    inverted: u64,
    mask: u64,
    any_of: u64,
    returned: u64,
}

/// Pages that are not write-protected; they are, afterwards. For exactly this question the kernel has a way that takes 0.4 ms
/// for a gigabyte of protected pages rather than 8 ms; it also finds pages of files, and some that do not exist.
const WRITTEN: Search = Search {
    flags: (raw::PM_SCAN_WP_MATCHING | raw::PM_SCAN_CHECK_WPASYNC) as u64,
    inverted: 0,
    mask: raw::PAGE_IS_WRITTEN as u64,
    any_of: 0,
    returned: raw::PAGE_IS_WRITTEN as u64,
};

/// Anonymous pages, in memory or swapped out.
const PRIVATE: Search = Search {
    flags: 0,
    inverted: raw::PAGE_IS_FILE as u64,
    mask: raw::PAGE_IS_FILE as u64,
    any_of: (raw::PAGE_IS_PRESENT | raw::PAGE_IS_SWAPPED) as u64,
    returned: raw::PAGE_IS_PRESENT as u64,
};

/// Pages in memory or swapped out.
const PRESENT: Search = Search {
    flags: 0,
    inverted: 0,
    mask: 0,
    any_of: (raw::PAGE_IS_PRESENT | raw::PAGE_IS_SWAPPED) as u64,
    returned: raw::PAGE_IS_PRESENT as u64,
};

/// One call of `PAGEMAP_SCAN`, which returns how many regions it has found.
struct Scan<'a>(&'a mut raw::pm_scan_arg);

// SAFETY: the opcode is that of PAGEMAP_SCAN, whose argument is this structure, which it reads and writes; the regions
// that it points at are the caller's.
unsafe impl Ioctl for Scan<'_> {
    type Output = usize;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<raw::pm_scan_arg>(b'f', 16)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self.0).cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<usize> {
        Ok(out as usize)
    }
}

/// Finds pages of a mapping by `PAGEMAP_SCAN`.
fn scan(mapping: &Mapping, search: &Search) -> io::Result<Ranges> {
    let pagemap = File::open("/proc/self/pagemap")?;
    let base = mapping.base() as u64;
    let end = base + (mapping.size() as u64).next_multiple_of(page_size() as u64);
    let empty = raw::page_region {
        start: 0,
        end: 0,
        categories: 0,
    };
    let mut regions = vec![empty; REGIONS_PER_SCAN];
    let mut found = Ranges::default();
    let mut start = base;
    while start < end {
        let mut argument = raw::pm_scan_arg {
            size: size_of::<raw::pm_scan_arg>() as u64,
            flags: search.flags,
            start,
            end,
            walk_end: 0,
            vec: regions.as_mut_ptr() as u64,
            vec_len: REGIONS_PER_SCAN as u64,
            max_pages: 0,
            category_inverted: search.inverted,
            category_mask: search.mask,
            category_anyof_mask: search.any_of,
            return_mask: search.returned,
        };
        // SAFETY: the argument and the vector of regions that it points at are borrowed exclusively for the call; the
        // range belongs to the mapping. Write protection is asynchronous there and changes no content.
        let count = unsafe { ioctl(&pagemap, Scan(&mut argument))? };
        // After more than 512 regions the kernel says that it got as far as the last multiple of 512 of them, although it has
        // found all that are behind it. They are not to be found twice.
        let mut next = argument.walk_end;
        for region in regions.iter().take(count) {
            found.push(region.start - base..region.end - base);
            next = next.max(region.end);
        }
        if next <= start {
            return Err(io::Error::other("the kernel does not get on with the scan"));
        }
        start = next;
    }
    Ok(found)
}

/// Finds anonymous pages by `/proc/self/pagemap`, which older kernels have as well.
fn read_pagemap(mapping: &Mapping) -> io::Result<Ranges> {
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const FILE_OR_SHARED: u64 = 1 << 61;
    const ENTRIES_PER_READ: usize = 1 << 16;
    let page = page_size() as u64;
    let pagemap = File::open("/proc/self/pagemap")?;
    let first = mapping.base() as u64 / page;
    let pages = (mapping.size() as u64).div_ceil(page);
    let mut found = Ranges::default();
    let mut buffer = vec![0; 8 * ENTRIES_PER_READ];
    let mut done = 0;
    while done < pages {
        let count = (pages - done).min(ENTRIES_PER_READ as u64);
        let bytes = &mut buffer[..8 * count as usize];
        pagemap.read_exact_at(bytes, 8 * (first + done))?;
        for (number, entry) in (done..).zip(bytes.chunks_exact(8)) {
            let entry = entry
                .first_chunk()
                .map_or(0, |entry| u64::from_ne_bytes(*entry));
            if entry & (PRESENT | SWAPPED) != 0 && entry & FILE_OR_SHARED == 0 {
                found.push(page_range(number, page));
            }
        }
        done += count;
    }
    Ok(found)
}

fn page_range(number: u64, page: u64) -> Range<u64> {
    number * page..(number + 1) * page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_regions_than_the_kernel_tells_of_at_once_are_found_once_each() {
        let page = page_size();
        for regions in [511, 512, 513, 1000, 1024, 4095, 4096, 4097, 5000] {
            let bytes = 2 * page * regions;
            let mapping = Mapping::new(bytes, bytes, 0).expect("there is address space");
            let mut expected = Ranges::default();
            for region in 0..regions {
                let start = 2 * page * region;
                assert!(mapping.copy_in(start..start + 1, &[1]));
                expected.push(start as u64..(start + page) as u64);
            }
            // Kernels before 6.7 do not know the call.
            for found in [scan(&mapping, &PRIVATE), present(&mapping)]
                .into_iter()
                .flatten()
            {
                assert_eq!(found, expected, "{regions} regions");
            }
            assert_eq!(read_pagemap(&mapping).expect("it is readable"), expected);
        }
    }
}
