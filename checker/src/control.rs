//! The control memory and frames, as the rewriter's documentation has them. Written down here a second time on purpose.

/// Address of the request word.
pub(crate) const REQUEST_WORD: u32 = 0;
/// The bit of the request word that says that a call of the host is to be made again.
pub(crate) const CALL_CUT_SHORT: i32 = 4;
/// Address of the save pointer.
pub(crate) const SAVE_POINTER: u32 = 4;
/// Address of the word that loops store to.
pub(crate) const FENCE: u32 = 32;
/// Address of the restore pointer.
pub(crate) const RESTORE_POINTER: u32 = 8;
/// Address of the first flag that says that a segment was dropped.
pub(crate) const DROPPED: u32 = 64;
/// Where the values of a saved frame begin: behind function, site, size and what was staged.
pub(crate) const SAVED_VALUES: u32 = 16;
/// Where the values of a frame to restore begin: behind clone, entry, size and a zero.
pub(crate) const RESTORED_VALUES: u32 = 16;
/// Where a frame to restore has the number of its point.
pub(crate) const RESTORED_ENTRY: u32 = 4;
/// Where a frame to restore has its size.
pub(crate) const FRAME_SIZE: u32 = 8;
/// Where a saved frame has its site and behind that its size; before that are function and what was staged.
pub(crate) const SAVED_SITE: u32 = 8;

/// Bytes of a value in a frame.
pub(crate) fn size(ty: wasmparser::ValType) -> u32 {
    use wasmparser::ValType;
    match ty {
        ValType::I32 | ValType::F32 | ValType::Ref(_) => 4,
        ValType::I64 | ValType::F64 => 8,
        ValType::V128 => 16,
    }
}
