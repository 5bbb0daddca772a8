//! Names and tags, and what a user can call an image.

use std::collections::BTreeMap;

use super::files::{self, Staged};
use super::{IMAGES, NAMES, Store, TAGS, TEXT_LEN_MAX};
use crate::error::{Damage, StoreError};
use crate::id::ImageId;

/// A name or tag has at most so many bytes.
const NAME_LEN_MAX: usize = 128;
const PREFIX_LEN_MIN: usize = 4;
const ID_LEN: usize = 64;

impl Store {
    /// Finds an image by its full id, a tag, the name of a program (its latest image), or the first hexadecimal digits
    /// of its id, 4 at least. The first of these that fits counts, so that the tag or name "cafe" stays usable
    /// whatever ids there are.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`]; [`StoreError::Ambiguous`] when several ids start with the digits.
    pub fn resolve(&self, reference: &str) -> Result<ImageId, StoreError> {
        if check_name(reference).is_ok() {
            for folder in [TAGS, NAMES] {
                if let Some(id) = self.reference(folder, reference)? {
                    return Ok(id);
                }
            }
        }
        let candidates = self.images_that_start_with(reference)?;
        match candidates[..] {
            [] => Err(StoreError::NotFound {
                reference: reference.to_owned(),
                store: self.root.to_path_buf(),
            }),
            [id] => Ok(id),
            _ => Err(StoreError::Ambiguous {
                reference: reference.to_owned(),
                candidates,
            }),
        }
    }

    /// The latest image of the program `name`, if it has one.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidName`]; [`StoreError::Damaged`] when it is unreadable; [`StoreError::Io`].
    pub fn latest(&self, name: &str) -> Result<Option<ImageId>, StoreError> {
        check_name(name)?;
        self.reference(NAMES, name)
    }

    /// Makes `id` the latest image of the program `name`. It is durable on return.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidName`]; [`StoreError::Missing`] when there is no such image; [`StoreError::Io`].
    pub fn set_name(&self, name: &str, id: ImageId) -> Result<(), StoreError> {
        self.set_reference(NAMES, name, id)
    }

    /// Makes `tag` point at `id`. It is durable on return.
    ///
    /// # Errors
    ///
    /// As [`Store::set_name`].
    pub fn set_tag(&self, tag: &str, id: ImageId) -> Result<(), StoreError> {
        self.set_reference(TAGS, tag, id)
    }

    /// Forgets which image is the latest of the program `name`, be it readable or not. The image stays, and so do its
    /// records. It is durable on return.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidName`]; [`StoreError::NotFound`] when there is no such name; [`StoreError::Io`].
    pub fn remove_name(&self, name: &str) -> Result<(), StoreError> {
        let _lock = self.lock_shared()?;
        self.remove_reference(NAMES, name)
    }

    /// Removes a tag, be it readable or not. The image stays. It is durable on return.
    ///
    /// # Errors
    ///
    /// As [`Store::remove_name`].
    pub fn remove_tag(&self, tag: &str) -> Result<(), StoreError> {
        let _lock = self.lock_shared()?;
        self.remove_reference(TAGS, tag)
    }

    /// The latest image of each named program.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] when one of them is unreadable; [`StoreError::Io`].
    pub fn names(&self) -> Result<BTreeMap<String, ImageId>, StoreError> {
        self.references(NAMES)
    }

    /// All tags.
    ///
    /// # Errors
    ///
    /// As [`Store::names`].
    pub fn tags(&self) -> Result<BTreeMap<String, ImageId>, StoreError> {
        self.references(TAGS)
    }

    fn images_that_start_with(&self, digits: &str) -> Result<Vec<ImageId>, StoreError> {
        if !(PREFIX_LEN_MIN..=ID_LEN).contains(&digits.len()) || !is_hex(digits) {
            return Ok(Vec::new());
        }
        let digits = digits.to_ascii_lowercase();
        if let Ok(id) = digits.parse() {
            let exists = files::size_if_exists(&self.image_path(id))?.is_some();
            return Ok(Vec::from_iter(exists.then_some(id)));
        }
        let mut ids = Vec::new();
        for (name, _) in files::list(&self.root.join(IMAGES))? {
            if name.starts_with(&digits) {
                ids.extend(name.parse::<ImageId>());
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn set_reference(&self, folder: &str, name: &str, id: ImageId) -> Result<(), StoreError> {
        check_name(name)?;
        let _lock = self.lock_shared()?;
        self.require_image(id)?;
        self.write_reference(folder, name, id)
    }

    pub(super) fn write_reference(
        &self,
        folder: &str,
        name: &str,
        id: ImageId,
    ) -> Result<(), StoreError> {
        let target = self.root.join(folder).join(name);
        Staged::text(&self.root, target)?.write_and_publish(format!("{id}\n").as_bytes())
    }

    pub(super) fn remove_reference(&self, folder: &str, name: &str) -> Result<(), StoreError> {
        check_name(name)?;
        let path = self.root.join(folder).join(name);
        if !self.root.remove_if_exists(&path)? {
            return Err(StoreError::NotFound {
                reference: name.to_owned(),
                store: self.root.to_path_buf(),
            });
        }
        self.root.sync_parent(&path)
    }

    /// Fails when the image isn't there.
    pub(super) fn require_image(&self, id: ImageId) -> Result<(), StoreError> {
        let path = self.image_path(id);
        match files::size_if_exists(&path)? {
            Some(_) => Ok(()),
            None => Err(StoreError::Missing {
                what: "image",
                path,
            }),
        }
    }

    pub(super) fn reference(
        &self,
        folder: &str,
        name: &str,
    ) -> Result<Option<ImageId>, StoreError> {
        let path = self.root.join(folder).join(name);
        let Some(text) = files::read_if_exists(&path, TEXT_LEN_MAX, "reference")? else {
            return Ok(None);
        };
        match parse_reference(&text) {
            Some(id) => Ok(Some(id)),
            None => Err(StoreError::Damaged {
                what: "reference",
                path,
                source: Damage::Reference,
            }),
        }
    }

    fn references(&self, folder: &str) -> Result<BTreeMap<String, ImageId>, StoreError> {
        let mut references = BTreeMap::new();
        for (name, _) in files::list(&self.root.join(folder))? {
            if check_name(&name).is_err() {
                continue;
            }
            if let Some(id) = self.reference(folder, &name)? {
                references.insert(name, id);
            }
        }
        Ok(references)
    }
}

fn parse_reference(text: &[u8]) -> Option<ImageId> {
    str::from_utf8(text).ok()?.strip_suffix('\n')?.parse().ok()
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Fails when `name` cannot be the name of a program or a tag.
///
/// ```
/// use wsnap_snapshots::{StoreError, check_name};
///
/// assert!(check_name("job-7.old").is_ok());
/// assert!(matches!(check_name("../job"), Err(StoreError::InvalidName { .. })));
/// ```
///
/// # Errors
///
/// [`StoreError::InvalidName`], which states the rule that it breaks.
pub fn check_name(name: &str) -> Result<(), StoreError> {
    check_rules(name).map_err(|rule| StoreError::InvalidName {
        name: name.to_owned(),
        rule,
    })
}

fn check_rules(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > NAME_LEN_MAX {
        return Err("it must have 1 to 128 characters");
    }
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    {
        return Err("only the letters a to z and A to Z, digits, '.', '_' and '-' are allowed");
    }
    if name.starts_with('.') {
        return Err("it must not start with '.'");
    }
    if name.len() == ID_LEN && is_hex(name) {
        return Err("64 hexadecimal digits are an image id");
    }
    Ok(())
}
