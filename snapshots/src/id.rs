//! The names of things: BLAKE3 hashes, one type for each kind of thing they name, and the ids of records.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text is not the 64 lower-case hexadecimal digits of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a hash: 64 lower-case hexadecimal digits are expected")]
pub struct ParseHashError;

/// A text is not the 32 lower-case hexadecimal digits of a record's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a record id: 32 lower-case hexadecimal digits are expected")]
pub struct ParseRecordIdError;

fn parse_hex<const LEN: usize>(text: &str) -> Option<[u8; LEN]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * LEN {
        return None;
    }
    let mut bytes = [0; LEN];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit_value(pair[0])? << 4 | digit_value(pair[1])?;
    }
    Some(bytes)
}

fn digit_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

macro_rules! hash_type {
    ($(#[$attribute:meta])* $name:ident) => {
        id_type! { $(#[$attribute])* $name, 32, ParseHashError }
    };
}

macro_rules! id_type {
    ($(#[$attribute:meta])* $name:ident, $len:literal, $error:ident) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(
            /// Its bytes.
            pub [u8; $len],
        );

        impl fmt::Display for $name {
            /// Writes all lower-case hexadecimal digits.
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = $error;

            /// Reads exactly what `Display` writes.
            fn from_str(text: &str) -> Result<Self, $error> {
                parse_hex(text).map(Self).ok_or($error)
            }
        }

        impl Serialize for $name {
            /// As the text that `Display` writes.
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

hash_type! {
    /// Names an image: the BLAKE3 hash of its manifest's bytes.
    ImageId
}

hash_type! {
    /// Names a module: the BLAKE3 hash of its bytes, as the user gave them.
    ModuleHash
}

hash_type! {
    /// Names the content of a memory, its length included: the root of its [`crate::MemoryTree`].
    ///
    /// The default, all zero, names no memory; it stands in drafts until the content has been hashed.
    #[derive(Default)]
    MemoryHash
}

hash_type! {
    /// Names one leaf of a memory's hash tree; all zero for a leaf that holds only zeros.
    LeafHash
}

hash_type! {
    /// Names a layer file: the hash of the memory it was written for and of which of its pages it holds.
    LayerId
}

id_type! {
    /// Names a record. The first 8 bytes are those of the image's id, so that the records of an image are found by
    /// their file names alone; the others are random.
    RecordId, 16, ParseRecordIdError
}

impl ImageId {
    /// The id of the image whose manifest has these bytes.
    pub fn of(manifest_bytes: &[u8]) -> Self {
        Self(*blake3::hash(manifest_bytes).as_bytes())
    }
}

impl ModuleHash {
    /// The hash of the module that has these bytes.
    pub fn of(module_bytes: &[u8]) -> Self {
        Self(*blake3::hash(module_bytes).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_back_from_its_text() {
        let id = ImageId::of(b"some state");
        assert_eq!(id.to_string().len(), 64);
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn text_that_is_not_64_lower_case_digits_is_refused() {
        let text = ModuleHash::of(b"module").to_string();
        for bad in [
            "",
            &text[1..],
            &format!("{text}0"),
            &text.to_uppercase(),
            &format!("g{}", &text[1..]),
            &"é".repeat(32),
        ] {
            assert_eq!(bad.parse::<ModuleHash>(), Err(ParseHashError), "{bad}");
        }
    }

    #[test]
    fn a_record_id_has_32_digits() {
        let id = RecordId(*b"sixteen bytes it");
        assert_eq!(id.to_string().parse(), Ok(id));
        let hash = ImageId::of(b"some state").to_string();
        assert_eq!(hash.parse::<RecordId>(), Err(ParseRecordIdError));
    }
}
