//! What of [`crate::guest_api`] is part of an image. `runtime/STATE.md` has the bytes.

/// What an image says of how the program came to be in its state, as far as the program can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SavedOwn {
    /// The program is in the call by which it asked for this very snapshot: in a resumed run the call returns 1.
    pub is_in_snapshot: bool,
    /// How often the program had been resumed when the image was taken; always 0 for a deterministic one.
    pub resumes: u64,
}

/// Why bytes are not such a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeOwnError {
    /// They were written by another version of wsnap.
    #[error(
        "what the image says of the program itself has version {found}, and this version of wsnap reads {VERSION}: \
         resume it with the version that saved it"
    )]
    Version {
        /// The version found.
        found: u32,
    },
    /// They have no such form.
    #[error("what the image says of the program itself is damaged")]
    Damaged,
}

const VERSION: u32 = 1;
const IS_IN_SNAPSHOT: u8 = 1 << 0;

impl SavedOwn {
    /// The one sequence of bytes that stands for this state.
    pub fn encode(&self) -> Vec<u8> {
        let flags = if self.is_in_snapshot {
            IS_IN_SNAPSHOT
        } else {
            0
        };
        let mut bytes = VERSION.to_le_bytes().to_vec();
        bytes.push(flags);
        bytes.extend_from_slice(&self.resumes.to_le_bytes());
        bytes
    }

    /// Reads what [`encode`](SavedOwn::encode) wrote.
    ///
    /// # Errors
    ///
    /// [`DecodeOwnError`] for any other bytes, and for those of a state that an image does not mention: the default.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeOwnError> {
        let (version, rest) = bytes.split_first_chunk().ok_or(DecodeOwnError::Damaged)?;
        let found = u32::from_le_bytes(*version);
        if found != VERSION {
            return Err(DecodeOwnError::Version { found });
        }
        let Some((&[flags], resumes)) = rest.split_first_chunk() else {
            return Err(DecodeOwnError::Damaged);
        };
        let resumes = resumes.try_into().map_err(|_| DecodeOwnError::Damaged)?;
        let state = Self {
            is_in_snapshot: flags == IS_IN_SNAPSHOT,
            resumes: u64::from_le_bytes(resumes),
        };
        if flags & !IS_IN_SNAPSHOT != 0 || state == Self::default() {
            return Err(DecodeOwnError::Damaged);
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written_and_nothing_else_is() {
        for (is_in_snapshot, resumes) in [(true, 0), (false, 1), (true, u64::MAX)] {
            let state = SavedOwn {
                is_in_snapshot,
                resumes,
            };
            let bytes = state.encode();
            assert_eq!(SavedOwn::decode(&bytes), Ok(state));
            for len in 0..bytes.len() {
                let cut = SavedOwn::decode(&bytes[..len]);
                assert_eq!(cut, Err(DecodeOwnError::Damaged), "{len} bytes");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(SavedOwn::decode(&longer), Err(DecodeOwnError::Damaged));
        }
    }

    #[test]
    fn a_state_of_another_version_with_unknown_flags_or_without_content_is_refused() {
        let state = SavedOwn {
            is_in_snapshot: true,
            resumes: 3,
        };
        let mut bytes = state.encode();
        bytes[4] = 2;
        assert_eq!(SavedOwn::decode(&bytes), Err(DecodeOwnError::Damaged));
        bytes[0] = 2;
        assert_eq!(
            SavedOwn::decode(&bytes),
            Err(DecodeOwnError::Version { found: 2 })
        );
        let nothing = SavedOwn::default().encode();
        assert_eq!(SavedOwn::decode(&nothing), Err(DecodeOwnError::Damaged));
    }
}
