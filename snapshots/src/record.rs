//! Records: when and why each snapshot was taken, and which one came before it. `FORMAT.md` describes the files.
//!
//! An image is state and nothing else, so one image can have several records: the same state reached twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Damage;
use crate::id::{ImageId, RecordId};

/// A record's file has at most so many bytes: 1 MiB.
pub(crate) const RECORD_LEN_MAX: u64 = 1 << 20;
/// The digits of the checksum between two line feeds.
const TRAILER_LEN: usize = 66;
/// So many bytes of a record's id are those of the image's id.
const IMAGE_PREFIX_LEN: usize = 8;

/// What is known about a snapshot beside its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The record's own id.
    pub id: RecordId,
    /// The state that the program had.
    pub image: ImageId,
    /// The record of the snapshot that the program was resumed from, or that was taken of it before.
    #[serde(default)]
    pub parent: Option<RecordId>,
    /// When the program was stopped, in milliseconds since the start of 1970 (UTC).
    pub taken_at_ms: u64,
    /// What caused the snapshot: `snap`, `SIGINT`, `every` and the like.
    pub trigger: String,
    /// The name of the program, if it has one.
    #[serde(default)]
    pub name: Option<String>,
    /// Whatever the user wants to be kept with the snapshot.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How many bytes this snapshot added to the store.
    pub added_bytes: u64,
    /// How long the program had run in all until then, in milliseconds, as far as whoever ran it knows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ran_ms: u64,
    /// How many bytes the file had that receives the program's standard output, if it is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// Why the program is not to be resumed from this snapshot by itself, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejection>,
}

/// That a program cannot go on from a snapshot, and how that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// When it was found, in milliseconds since the start of 1970 (UTC).
    pub at_ms: u64,
    /// What happened to the program, for people.
    pub reason: String,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over references"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A record to be made: [`Record`] without an id, of a snapshot that nobody has rejected. The fields are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "Record describes the fields")]
pub struct NewRecord {
    pub image: ImageId,
    pub parent: Option<RecordId>,
    pub taken_at_ms: u64,
    pub trigger: String,
    pub name: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub added_bytes: u64,
    pub ran_ms: u64,
    pub output_bytes: Option<u64>,
}

impl NewRecord {
    /// A record that nothing is known about but the image, the time and the cause of the snapshot.
    pub fn new(image: ImageId, taken_at_ms: u64, trigger: impl Into<String>) -> Self {
        Self {
            image,
            parent: None,
            taken_at_ms,
            trigger: trigger.into(),
            name: None,
            labels: BTreeMap::new(),
            added_bytes: 0,
            ran_ms: 0,
            output_bytes: None,
        }
    }

    pub(crate) fn with_id(self, id: RecordId) -> Record {
        Record {
            id,
            image: self.image,
            parent: self.parent,
            taken_at_ms: self.taken_at_ms,
            trigger: self.trigger,
            name: self.name,
            labels: self.labels,
            added_bytes: self.added_bytes,
            ran_ms: self.ran_ms,
            output_bytes: self.output_bytes,
            rejected: None,
        }
    }
}

impl RecordId {
    /// An id for a record of `image`.
    pub(crate) fn of_image(image: ImageId, random: [u8; 8]) -> Self {
        let mut id = Self([0; 16]);
        id.0[..IMAGE_PREFIX_LEN].copy_from_slice(&image.0[..IMAGE_PREFIX_LEN]);
        id.0[IMAGE_PREFIX_LEN..].copy_from_slice(&random);
        id
    }

    /// Whether a record of `image` can have this id. Few other images have the same first bytes.
    pub(crate) fn fits(self, image: ImageId) -> bool {
        self.0[..IMAGE_PREFIX_LEN] == image.0[..IMAGE_PREFIX_LEN]
    }
}

impl Record {
    /// The key that records are ordered by: time, then id.
    pub fn order(&self) -> (u64, RecordId) {
        (self.taken_at_ms, self.id)
    }

    /// The content of the record's file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        with_checksum(
            serde_json::to_vec(self).expect("numbers, texts and maps of texts can be written"),
        )
    }

    /// Reads the content of the file of record `id`. It has been read with a limit, so that nothing here needs one.
    pub(crate) fn decode(bytes: &[u8], id: RecordId) -> Result<Self, Damage> {
        let record: Self = serde_json::from_slice(checked(bytes)?).map_err(not_a_record)?;
        if record.id != id {
            return Err(Damage::OtherRecord { found: record.id });
        }
        if !id.fits(record.image) {
            return Err(Damage::OtherImage {
                found: record.image,
            });
        }
        Ok(record)
    }
}

/// The content of a record's file with another parent.
pub(crate) fn with_parent(bytes: &[u8], parent: Option<RecordId>) -> Result<Vec<u8>, Damage> {
    let parent = parent.map_or(Value::Null, |id| Value::String(id.to_string()));
    with_field(bytes, "parent", parent)
}

/// The content of a record's file with a rejection.
pub(crate) fn with_rejection(bytes: &[u8], rejection: &Rejection) -> Result<Vec<u8>, Damage> {
    let rejection = serde_json::to_value(rejection).expect("a number and a text can be written");
    with_field(bytes, "rejected", rejection)
}

/// The content of a record's file with another value of a field. Fields that this version doesn't know stay as they are.
fn with_field(bytes: &[u8], field: &str, value: Value) -> Result<Vec<u8>, Damage> {
    let mut fields: Map<String, Value> =
        serde_json::from_slice(checked(bytes)?).map_err(not_a_record)?;
    fields.insert(field.to_owned(), value);
    Ok(with_checksum(
        serde_json::to_vec(&fields).expect("what was JSON can be written as JSON"),
    ))
}

/// A line with its checksum, as records and journals are stored.
pub(crate) fn with_checksum(mut line: Vec<u8>) -> Vec<u8> {
    let checksum = blake3::hash(&line).to_hex();
    line.push(b'\n');
    line.extend_from_slice(checksum.as_bytes());
    line.push(b'\n');
    line
}

/// The line that the checksum at the end stands for.
pub(crate) fn checked(bytes: &[u8]) -> Result<&[u8], Damage> {
    let fits = |(line, trailer): (&'_ [u8], &[u8])| {
        let expected = with_checksum(line.to_vec());
        expected[line.len()..] == *trailer
    };
    bytes
        .len()
        .checked_sub(TRAILER_LEN)
        .map(|len| bytes.split_at(len))
        .filter(|parts| fits(*parts))
        .map(|(line, _)| line)
        .ok_or(Damage::RecordChecksum)
}

fn not_a_record(error: serde_json::Error) -> Damage {
    Damage::Record {
        problem: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let image = ImageId([7; 32]);
        let mut new = NewRecord::new(image, u64::MAX, "a \"trigger\"\nof two lines");
        new.parent = Some(RecordId([9; 16]));
        new.name = Some("job".to_owned());
        new.labels.insert("näme".to_owned(), String::new());
        new.added_bytes = u64::MAX - 1;
        new.ran_ms = 7;
        new.output_bytes = Some(0);
        new.with_id(RecordId::of_image(image, [1; 8]))
    }

    fn file(text: &str) -> Vec<u8> {
        with_checksum(text.as_bytes().to_vec())
    }

    #[test]
    fn a_record_is_read_back_from_its_file() {
        let bytes = record().encode();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 2);
        assert_eq!(Record::decode(&bytes, record().id), Ok(record()));
    }

    #[test]
    fn every_changed_bit_and_every_cut_of_a_record_is_found() {
        let bytes = record().encode();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let result = Record::decode(&changed, record().id);
            assert_eq!(result, Err(Damage::RecordChecksum), "bit {bit}");
        }
        for len in 0..bytes.len() {
            let result = Record::decode(&bytes[..len], record().id);
            assert_eq!(result, Err(Damage::RecordChecksum), "{len} bytes");
        }
    }

    #[test]
    fn a_record_under_the_name_of_another_is_found() {
        let other = RecordId::of_image(ImageId([7; 32]), [2; 8]);
        assert_eq!(
            Record::decode(&record().encode(), other),
            Err(Damage::OtherRecord { found: record().id })
        );
        let mut of_other_image = record();
        of_other_image.image = ImageId([8; 32]);
        assert_eq!(
            Record::decode(&of_other_image.encode(), record().id),
            Err(Damage::OtherImage {
                found: ImageId([8; 32])
            })
        );
    }

    #[test]
    fn json_that_is_no_record_is_refused_whatever_its_checksum() {
        let whole = serde_json::to_string(&record()).unwrap();
        for text in [
            "",
            "[]",
            "{}",
            "null",
            &whole.replace("18446744073709551615", "-1"),
            &whole.replace("18446744073709551615", "1e400"),
            &whole.replace("0909", "09"),
            &whole.replace("\"trigger\":", "\"added_bytes\":1,\"trigger\":"),
            &"[".repeat(1 << 19),
        ] {
            match Record::decode(&file(text), record().id) {
                Err(Damage::Record { .. }) => (),
                other => panic!("{text:.100}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_rejection_is_added_to_a_record_and_changes_nothing_else() {
        let rejection = Rejection {
            at_ms: 3,
            reason: "it \"trapped\"".to_owned(),
        };
        let bytes = with_rejection(&record().encode(), &rejection).unwrap();
        let expected = Record {
            rejected: Some(rejection),
            ..record()
        };
        assert_eq!(Record::decode(&bytes, record().id), Ok(expected));
    }

    #[test]
    fn another_parent_leaves_unknown_fields_alone() {
        let text = serde_json::to_string(&record()).unwrap();
        let later = text.replacen('{', "{\"verdict\":\"good\",", 1);
        assert_eq!(Record::decode(&file(&later), record().id), Ok(record()));

        let bytes = with_parent(&file(&later), None).unwrap();
        let expected = Record {
            parent: None,
            ..record()
        };
        assert_eq!(Record::decode(&bytes, record().id), Ok(expected));
        let fields: Map<String, Value> = serde_json::from_slice(checked(&bytes).unwrap()).unwrap();
        assert_eq!(fields["verdict"], "good");
    }
}
