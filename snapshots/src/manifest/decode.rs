//! From bytes, which may come from a stranger, to a manifest.

use super::encode::kind;
use super::{
    Elements, Exception, FORMAT_VERSION, Frame, FrameState, GlobalState, Invocation, MAGIC,
    MEMORY_LEN_MAX, Manifest, MemoryState, Phase, TABLE_LEN_MAX, TableState, Value,
};
use crate::bytes::Reader;
use crate::error::DecodeError;
use crate::id::{MemoryHash, ModuleHash};

const FORMAT: &str = "image";
/// The fewest bytes of a value: a null reference.
const VALUE_SIZE_MIN: usize = 1;

impl Manifest {
    /// Reads a manifest from all of `bytes`, and nothing but what [`Manifest::encode`] writes. The memory taken is
    /// proportional to the size of the input, whatever it states.
    ///
    /// # Errors
    ///
    /// Each variant of [`DecodeError`] that doesn't speak of page maps.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.header(FORMAT, &MAGIC, FORMAT_VERSION)?;
        let mut decoder = Decoder {
            reader,
            last_exception: None,
        };
        let manifest = Self {
            module: ModuleHash(decoder.reader.array("module hash")?),
            deterministic: decoder.choice("determinism", [false, true])?,
            invocation: decoder.invocation()?,
            memories: decoder.list("memories", 41, Decoder::memory)?,
            globals: decoder.ascending(
                "globals",
                4 + VALUE_SIZE_MIN,
                Decoder::global,
                |global| global.index,
            )?,
            tables: decoder.ascending("tables", 12, Decoder::table, |table| table.index)?,
            dropped_data: decoder.indices("dropped data segments")?,
            dropped_elements: decoder.indices("dropped element segments")?,
            exceptions: decoder.list("exceptions", 12, Decoder::exception)?,
            frames: decoder.list("frames", 25, Decoder::frame)?,
            host: decoder
                .ascending("host sections", 16, Decoder::host_section, |(name, _)| {
                    name.clone()
                })?
                .into_iter()
                .collect(),
        };
        decoder.check_exceptions(manifest.exceptions.len())?;
        decoder.reader.finish()?;
        Ok(manifest)
    }
}

struct Decoder<'a> {
    reader: Reader<'a>,
    /// The highest index of an exception that any value points at, and where the value stands.
    last_exception: Option<(u32, usize)>,
}

impl Decoder<'_> {
    fn choice<T: Copy, const COUNT: usize>(
        &mut self,
        what: &'static str,
        of: [T; COUNT],
    ) -> Result<T, DecodeError> {
        let offset = self.reader.offset();
        let found = self.reader.u8(what)?;
        of.get(usize::from(found))
            .copied()
            .ok_or(DecodeError::Discriminant {
                what,
                offset,
                found,
            })
    }

    fn list<T>(
        &mut self,
        what: &'static str,
        size_min: usize,
        item: impl Fn(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.reader.count(what, size_min)?;
        (0..count).map(|_| item(self)).collect()
    }

    /// A list whose items are in strictly ascending order of their keys.
    fn ascending<T, K: Ord>(
        &mut self,
        what: &'static str,
        size_min: usize,
        item: impl Fn(&mut Self) -> Result<T, DecodeError>,
        key: impl Fn(&T) -> K,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.reader.count(what, size_min)?;
        let mut items: Vec<T> = Vec::new();
        for _ in 0..count {
            let offset = self.reader.offset();
            let next = item(self)?;
            if items.last().is_some_and(|last| key(last) >= key(&next)) {
                return Err(DecodeError::Unordered { what, offset });
            }
            items.push(next);
        }
        Ok(items)
    }

    fn indices(&mut self, what: &'static str) -> Result<Vec<u32>, DecodeError> {
        self.ascending(what, 4, |decoder| decoder.reader.u32(what), |index| *index)
    }

    fn values(&mut self, what: &'static str) -> Result<Vec<Value>, DecodeError> {
        self.list(what, VALUE_SIZE_MIN, Self::value)
    }

    fn invocation(&mut self) -> Result<Invocation, DecodeError> {
        Ok(Invocation {
            phase: self.choice("phase", [Phase::Start, Phase::Export])?,
            export: self.reader.text("export name")?.to_owned(),
            arguments: self.values("arguments")?,
        })
    }

    fn memory(&mut self) -> Result<MemoryState, DecodeError> {
        let offset = self.reader.offset();
        let pages = self.reader.u64("memory size")?;
        let page_size_log2 = self.reader.u8("memory page size")?;
        if !matches!(page_size_log2, 0 | 16) {
            return Err(DecodeError::Discriminant {
                what: "memory page size",
                offset: offset + 8,
                found: page_size_log2,
            });
        }
        let content = MemoryHash(self.reader.array("memory hash")?);
        let memory = MemoryState {
            pages,
            page_size_log2,
            content,
        };
        if memory.byte_len().is_none() {
            let limit = MEMORY_LEN_MAX >> page_size_log2;
            return Err(DecodeError::Limit {
                what: "memory size",
                offset,
                found: pages,
                limit,
            });
        }
        Ok(memory)
    }

    fn global(&mut self) -> Result<GlobalState, DecodeError> {
        Ok(GlobalState {
            index: self.reader.u32("global index")?,
            value: self.value()?,
        })
    }

    fn table(&mut self) -> Result<TableState, DecodeError> {
        let index = self.reader.u32("table index")?;
        let runs = self
            .reader
            .count("runs of table elements", 8 + VALUE_SIZE_MIN)?;
        let mut elements = Elements::default();
        for _ in 0..runs {
            let offset = self.reader.offset();
            let length = self.reader.u64("run length")?;
            let value = self.value()?;
            if length == 0
                || elements
                    .runs()
                    .last()
                    .is_some_and(|last| last.value == value)
            {
                return Err(DecodeError::NotMinimal { offset });
            }
            let found = elements.len().saturating_add(length);
            if found > TABLE_LEN_MAX {
                return Err(DecodeError::Limit {
                    what: "table size",
                    offset,
                    found,
                    limit: TABLE_LEN_MAX,
                });
            }
            elements.push_run(length, value);
        }
        Ok(TableState { index, elements })
    }

    fn exception(&mut self) -> Result<Exception, DecodeError> {
        Ok(Exception {
            tag: self.reader.u32("exception tag")?,
            fields: self.values("exception fields")?,
        })
    }

    fn frame(&mut self) -> Result<Frame, DecodeError> {
        let start = self.reader.offset();
        let function = self.reader.u32("frame function")?;
        let offset = self.reader.u32("frame code offset")?;
        let state = self.choice(
            "frame state",
            [FrameState::Calling, FrameState::Next, FrameState::HostCall],
        )?;
        if state == FrameState::HostCall && offset != 0 {
            return Err(DecodeError::HostCallOffset { offset: start });
        }
        let locals = self.ascending("locals", 4 + VALUE_SIZE_MIN, Self::local, |(index, _)| {
            *index
        })?;
        Ok(Frame {
            function,
            offset,
            state,
            locals,
            operands: self.values("operands")?,
        })
    }

    fn local(&mut self) -> Result<(u32, Value), DecodeError> {
        Ok((self.reader.u32("local index")?, self.value()?))
    }

    fn host_section(&mut self) -> Result<(String, Vec<u8>), DecodeError> {
        let name = self.reader.text("host section name")?.to_owned();
        Ok((name, self.reader.sized("host section")?.to_vec()))
    }

    fn value(&mut self) -> Result<Value, DecodeError> {
        let offset = self.reader.offset();
        let reader = &mut self.reader;
        Ok(match reader.u8("value kind")? {
            kind::I32 => Value::I32(i32::from_le_bytes(reader.array("i32")?)),
            kind::I64 => Value::I64(i64::from_le_bytes(reader.array("i64")?)),
            kind::F32 => Value::F32(reader.u32("f32")?),
            kind::F64 => Value::F64(reader.u64("f64")?),
            kind::V128 => Value::V128(u128::from_le_bytes(reader.array("v128")?)),
            kind::FUNC_NULL => Value::FuncRef(None),
            kind::FUNC => Value::FuncRef(Some(reader.u32("function index")?)),
            kind::EXTERN_NULL => Value::ExternRefNull,
            kind::EXN_NULL => Value::ExnRef(None),
            kind::EXN => {
                let index = reader.u32("exception index")?;
                if self.last_exception.is_none_or(|(last, _)| index > last) {
                    self.last_exception = Some((index, offset));
                }
                Value::ExnRef(Some(index))
            }
            found => {
                return Err(DecodeError::Discriminant {
                    what: "value kind",
                    offset,
                    found,
                });
            }
        })
    }

    fn check_exceptions(&self, count: usize) -> Result<(), DecodeError> {
        match self.last_exception {
            Some((index, offset)) if index as usize >= count => {
                Err(DecodeError::DanglingException {
                    offset,
                    index,
                    count,
                })
            }
            _ => Ok(()),
        }
    }
}
