//! Little-endian fields in sequences of bytes: a writer, and a reader that trusts nothing.

use crate::error::DecodeError;

/// Appends fields to a growing sequence of bytes.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// A count or length. All of them have 64 bits in the format, so that no state can overflow them.
    pub fn count(&mut self, count: usize) {
        self.u64(count as u64);
    }

    /// A length in bytes, and the bytes.
    pub fn sized(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes fields from bytes that may come from a stranger. `what` names the field in errors.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// How many bytes have been taken.
    pub fn offset(&self) -> usize {
        self.offset
    }

    pub fn raw(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.offset..];
        let Some(field) = rest.get(..len) else {
            return Err(DecodeError::Truncated {
                what,
                offset: self.offset,
            });
        };
        self.offset += len;
        Ok(field)
    }

    pub fn array<const LEN: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; LEN], DecodeError> {
        let mut array = [0; LEN];
        array.copy_from_slice(self.raw(LEN, what)?);
        Ok(array)
    }

    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array(what).map(u8::from_le_bytes)
    }

    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of items that take at least `size_min` bytes each, refused when so many cannot follow. What is
    /// allocated for the items is thereby bounded by the size of the input.
    pub fn count(&mut self, what: &'static str, size_min: usize) -> Result<usize, DecodeError> {
        let offset = self.offset;
        let found = self.u64(what)?;
        let most = (self.bytes.len() - self.offset) / size_min;
        match usize::try_from(found) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(DecodeError::Count {
                what,
                offset,
                found,
                most: most as u64,
            }),
        }
    }

    /// A length in bytes, and so many bytes.
    pub fn sized(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.count(what, 1)?;
        self.raw(len, what)
    }

    /// A length in bytes, and so many bytes of UTF-8.
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let offset = self.offset;
        str::from_utf8(self.sized(what)?).map_err(|_| DecodeError::NotText {
            what,
            offset: offset + 8,
        })
    }

    /// The start of every file format: its magic, then the one version that this build reads.
    pub fn header(
        &mut self,
        format: &'static str,
        magic: &[u8; 8],
        version: u32,
    ) -> Result<(), DecodeError> {
        if !self.bytes.starts_with(magic) {
            return Err(DecodeError::NotThisFormat { format });
        }
        self.offset = magic.len();
        let found = self.u32("format version")?;
        if found != version {
            return Err(DecodeError::Version {
                format,
                found,
                supported: version,
            });
        }
        Ok(())
    }

    /// Refuses bytes behind the last field.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.offset < self.bytes.len() {
            return Err(DecodeError::TrailingBytes {
                offset: self.offset,
            });
        }
        Ok(())
    }
}
