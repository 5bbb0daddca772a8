//! The content of a program's volumes: one memory each, behind those of the module. So what holds of memories holds of files:
//! resuming copies nothing, a snapshot stores the pages that were written, and images share what is equal.

use crate::error::{Error, Result};
use crate::memory::{HostMemory, Mapping};
use std::io;
use std::sync::Arc;
use wsnap_wasi::{VolumeMemory, Wasi};

/// How much a volume can hold, in bytes: 32 GiB, for which address space is reserved.
pub(crate) const VOLUME_RESERVATION: usize = 1 << 35;

/// Lengths of volumes' contents are counted in bytes, not in WebAssembly's pages.
pub(crate) const VOLUME_PAGE_SIZE_LOG2: u8 = 0;

impl VolumeMemory for HostMemory {
    fn bytes(&self) -> &[u8] {
        HostMemory::bytes(self)
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        HostMemory::bytes_mut(self)
    }

    fn grow_to(&mut self, byte_len: u64) -> io::Result<()> {
        let size = usize::try_from(byte_len).map_err(|_| io::ErrorKind::StorageFull)?;
        if size <= self.bytes().len() {
            return Ok(());
        }
        HostMemory::grow_to(self, size).map_err(|_| io::ErrorKind::StorageFull.into())
    }
}

/// Empty memories for the volumes of a program that has not begun to run.
pub(crate) fn empty(wasi: &Wasi) -> Result<Vec<Arc<Mapping>>> {
    wasi.volumes()
        .map(|_| Mapping::new(0, VOLUME_RESERVATION, 0))
        .collect()
}

/// Has the volumes of `wasi` keep their content in `memories`, one each.
///
/// # Errors
///
/// [`Error::Image`] when there are more or fewer of them than volumes, or one is shorter than its volume's content.
pub(crate) fn attach(wasi: &mut Wasi, memories: &[Arc<Mapping>]) -> Result<()> {
    let (volumes, found) = (wasi.volumes().len(), memories.len());
    if volumes != found {
        return Err(Error::Image(format!(
            "it has the content of {found} volumes, and the host state names {volumes}"
        )));
    }
    for (index, memory) in memories.iter().enumerate() {
        let memory = Box::new(HostMemory::new(memory.clone()));
        let set = wasi.set_volume_memory(index, memory);
        set.map_err(|error| Error::Image(error.to_string()))?;
    }
    Ok(())
}
