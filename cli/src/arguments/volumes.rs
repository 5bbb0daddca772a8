//! Flags and arguments that name volumes and what lies in them.

use std::collections::BTreeSet;
use std::str::FromStr;

use wsnap::wasi::VolumeGrant;

use super::SEPARATOR;
use crate::failure::Failure;

/// A volume to give to a program: `NAME::GUEST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// Its name outside of the program.
    pub name: String,
    /// The path that the program knows it by.
    pub guest: String,
}

/// A text names no volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// The form is wrong.
    #[error("expected NAME::GUEST, neither of them empty")]
    Form,
    /// The name is wrong.
    #[error("the name of a volume consists of letters, digits, '.', '_' and '-'")]
    Name,
}

impl FromStr for NewVolume {
    type Err = VolumeError;

    fn from_str(text: &str) -> Result<Self, VolumeError> {
        match text.split_once(SEPARATOR) {
            Some((name, guest)) if !name.is_empty() && !guest.is_empty() => Ok(Self {
                name: checked(name)?,
                guest: guest.to_owned(),
            }),
            _ => Err(VolumeError::Form),
        }
    }
}

impl NewVolume {
    /// What the program is given. Names are unique, since they are all that tells volumes apart from outside.
    pub(crate) fn grant_all(volumes: &[Self]) -> Result<Vec<VolumeGrant>, Failure> {
        let mut names = BTreeSet::new();
        if let Some(twice) = volumes.iter().find(|volume| !names.insert(&volume.name)) {
            return Err(
                Failure::new(format!("two volumes are named {}", twice.name))
                    .hint("give each --volume NAME::GUEST a name of its own"),
            );
        }
        let grant = |volume: &Self| VolumeGrant {
            name: volume.name.clone(),
            guest_path: volume.guest.clone(),
        };
        Ok(volumes.iter().map(grant).collect())
    }
}

/// A place in a volume: `NAME` or `NAME:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumePath {
    /// The name of the volume.
    pub volume: String,
    /// The path in it; `.` is the volume itself.
    pub path: String,
}

impl FromStr for VolumePath {
    type Err = VolumeError;

    fn from_str(text: &str) -> Result<Self, VolumeError> {
        let (volume, path) = text.split_once(':').unwrap_or((text, "."));
        let path = path.trim_start_matches('/');
        Ok(Self {
            volume: checked(volume)?,
            path: if path.is_empty() { "." } else { path }.to_owned(),
        })
    }
}

fn checked(name: &str) -> Result<String, VolumeError> {
    let is_known = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    if name.is_empty() || !name.chars().all(is_known) {
        return Err(VolumeError::Name);
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_a_name_and_a_guest_path() {
        let volume = NewVolume {
            name: "data".to_owned(),
            guest: "/var/data".to_owned(),
        };
        assert_eq!("data::/var/data".parse(), Ok(volume));
        for text in ["", "data", "::", "data::", "::/data"] {
            assert_eq!(text.parse::<NewVolume>(), Err(VolumeError::Form), "{text}");
        }
        for text in ["a b::/c", "a:b::/c", "a/b::/c"] {
            assert_eq!(text.parse::<NewVolume>(), Err(VolumeError::Name), "{text}");
        }
    }

    #[test]
    fn a_place_in_a_volume_is_the_volume_itself_unless_a_path_is_given() {
        let place = |volume: &str, path: &str| VolumePath {
            volume: volume.to_owned(),
            path: path.to_owned(),
        };
        for (text, path) in [
            ("data", "."),
            ("data:", "."),
            ("data:/", "."),
            ("data:/a/b", "a/b"),
            ("data:a:b", "a:b"),
        ] {
            assert_eq!(text.parse(), Ok(place("data", path)), "{text}");
        }
        assert_eq!(":a".parse::<VolumePath>(), Err(VolumeError::Name));
    }
}
