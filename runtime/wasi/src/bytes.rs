//! Writing and reading little-endian fields. Lengths and counts are 64 bits wide, so that none can be too large to write.

use crate::saved_state::DecodeError;

#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Makes room for so many more bytes at once.
    pub(crate) fn reserve(&mut self, byte_len: usize) {
        self.0.reserve(byte_len);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// A length, then so many bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.raw(bytes);
    }

    /// A count, then so many items.
    pub(crate) fn list<I>(&mut self, items: I, write: impl Fn(&mut Writer, I::Item))
    where
        I: IntoIterator<IntoIter: ExactSizeIterator>,
    {
        let items = items.into_iter();
        self.u64(items.len() as u64);
        for item in items {
            write(self, item);
        }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

pub(crate) struct Reader<'b> {
    all: &'b [u8],
    offset: usize,
}

impl<'b> Reader<'b> {
    pub(crate) fn new(all: &'b [u8]) -> Reader<'b> {
        Reader { all, offset: 0 }
    }

    fn take(&mut self, length: u64) -> Result<&'b [u8], DecodeError> {
        let offset = self.offset;
        let rest = &self.all[offset..];
        let length = usize::try_from(length).ok();
        let field = length.and_then(|length| rest.get(..length));
        let field = field.ok_or(DecodeError::Truncated { offset })?;
        self.offset += field.len();
        Ok(field)
    }

    pub(crate) fn raw<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut value = [0; N];
        value.copy_from_slice(self.take(N as u64)?);
        Ok(value)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.raw()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.raw()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.raw()?))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'b [u8], DecodeError> {
        let length = self.u64()?;
        self.take(length)
    }

    pub(crate) fn utf8(&mut self) -> Result<String, DecodeError> {
        let text = std::str::from_utf8(self.bytes()?);
        let text = text.map_err(|_| self.invalid("a path that is not Unicode"))?;
        Ok(text.to_owned())
    }

    /// How many items follow. Every item has at least one byte, so a count beyond what is left is a lie.
    pub(crate) fn count(&mut self) -> Result<u64, DecodeError> {
        let offset = self.offset;
        let count = self.u64()?;
        if count > (self.all.len() - self.offset) as u64 {
            return Err(DecodeError::Truncated { offset });
        }
        Ok(count)
    }

    pub(crate) fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Reader<'b>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.count()?;
        (0..count).map(|_| read(self)).collect()
    }

    pub(crate) fn invalid(&self, what: &'static str) -> DecodeError {
        let offset = self.offset;
        DecodeError::Invalid { offset, what }
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.offset < self.all.len() {
            return Err(self.invalid("bytes that belong to nothing follow what comes"));
        }
        Ok(())
    }
}
