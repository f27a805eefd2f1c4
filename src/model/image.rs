//! Images' identities: a family, one immutable version of it, and what an operator may call either.
//!
//! LVM allows neither `@` in a name nor in a tag, so a version is written with `+` in a volume's name and with `:` in a
//! tag; an image's name has neither. Version 1 is written without a version, as all images were before there were
//! versions: what was made then is found without being renamed, and each image has one name only.

use std::{fmt, str::FromStr};

use super::{ImageName, LvName, names::serde_as_text};
use crate::error::Error;

/// Images' logical volumes are called `sheath-img-<name>`, later versions `sheath-img-<name>+<version>`.
const IMAGE_PREFIX: &str = "sheath-img-";

/// The highest version: five digits keep a volume's name below LVM's limit.
const HIGHEST: u32 = 99_999;

/// The number of an image's version: 1 to 99999, given once and never again while a later one exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u32);

impl Version {
    /// The first version of any image.
    pub const FIRST: Self = Self(1);

    /// Returns the number.
    pub fn number(self) -> u32 {
        self.0
    }

    /// Returns the version after this one, or `None` after the highest.
    pub fn next(self) -> Option<Self> {
        Some(Self(self.0 + 1)).filter(|next| next.0 <= HIGHEST)
    }
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let plain = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) && !text.starts_with('0');
        match text.parse() {
            Ok(n @ 1..=HIGHEST) if plain => Ok(Self(n)),
            _ => Err(Error::invalid(format!(
                "'{}' is not a version of an image (1 to {HIGHEST})",
                text.escape_debug()
            ))),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

serde_as_text!(Version);

/// One image: a version of a family. It never changes; what changes is which version a family's name stands for.
///
/// Its text is `debian13@3`. A name alone reads as version 1: so were images called in what was saved before there were
/// versions. What an operator writes is an [`ImageRef`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageId {
    /// The family's name.
    pub name: ImageName,
    /// The version.
    pub version: Version,
}

impl ImageId {
    /// Returns this version of the family.
    pub fn new(name: ImageName, version: Version) -> Self {
        Self { name, version }
    }

    /// Returns the name of the image's logical volume.
    pub fn lv_name(&self) -> LvName {
        let name = format!("{IMAGE_PREFIX}{}", self.written('+'));
        name.parse().expect("a fixed prefix, an image name and five digits are a valid name")
    }

    /// Returns the image of a logical volume's name, or `None` where the name is not an image's.
    pub fn from_lv_name(name: &str) -> Option<Self> {
        Self::read(name.strip_prefix(IMAGE_PREFIX)?, '+').ok()
    }

    /// Returns the image as an LVM tag's value.
    pub(super) fn tag_value(&self) -> String {
        self.written(':')
    }

    /// Reads an LVM tag's value.
    pub(super) fn from_tag_value(value: &str) -> Result<Self, Error> {
        Self::read(value, ':')
    }

    fn written(&self, mark: char) -> String {
        match self.version {
            Version::FIRST => self.name.to_string(),
            version => format!("{}{mark}{version}", self.name),
        }
    }

    /// Reads what [`Self::written`] has written, and nothing else: a second spelling would be a second volume.
    fn read(text: &str, mark: char) -> Result<Self, Error> {
        let Some((name, version)) = text.split_once(mark) else {
            return Ok(Self::new(text.parse()?, Version::FIRST));
        };
        match version.parse()? {
            Version::FIRST => {
                Err(Error::invalid(format!("'{}' has a version too much", text.escape_debug())))
            }
            version => Ok(Self::new(name.parse()?, version)),
        }
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

impl fmt::Debug for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ImageId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let ImageRef { name, version } = text.parse()?;
        Ok(Self::new(name, version.unwrap_or(Version::FIRST)))
    }
}

serde_as_text!(ImageId);

/// What an operator, a configuration or a blade's console calls an image: `debian13` is the family's default version,
/// `debian13@3` that one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    /// The family's name.
    pub name: ImageName,
    /// The version; `None` for the default one.
    pub version: Option<Version>,
}

impl From<ImageName> for ImageRef {
    fn from(name: ImageName) -> Self {
        Self { name, version: None }
    }
}

impl From<ImageId> for ImageRef {
    fn from(ImageId { name, version }: ImageId) -> Self {
        Self { name, version: Some(version) }
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => fmt::Display::fmt(&self.name, f),
        }
    }
}

impl fmt::Debug for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ImageRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once('@') {
            Some((name, version)) => Ok(Self { name: name.parse()?, version: Some(version.parse()?) }),
            None => text.parse().map(|name| Self { name, version: None }),
        }
    }
}

serde_as_text!(ImageRef);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Tag, VgName};

    fn ids() -> impl Strategy<Value = ImageId> {
        ("[a-z0-9][a-z0-9.-]{0,38}[a-z0-9]", 1..=HIGHEST)
            .prop_map(|(name, version)| ImageId::new(name.parse().unwrap(), Version(version)))
    }

    proptest! {
        #[test]
        fn an_image_reads_back_from_its_text_its_volume_and_its_tag(id in ids()) {
            prop_assert_eq!(&id.to_string().parse::<ImageId>().unwrap(), &id);
            prop_assert_eq!(id.to_string().parse::<ImageRef>().unwrap(), ImageRef::from(id.clone()));
            prop_assert_eq!(&ImageId::from_lv_name(id.lv_name().as_str()).unwrap(), &id);
            let tag = Tag::Image(id.clone()).to_string();
            // lvm(8): a tag has at most 1024 of A-Z a-z 0-9 _ + . - / = ! : # & and no hyphen at its start.
            prop_assert!(tag.bytes().all(|c| c.is_ascii_alphanumeric() || b"_+.-/=!:#&".contains(&c)), "{}", tag);
            prop_assert_eq!(tag.parse::<Tag>().unwrap(), Tag::Image(id.clone()));
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<ImageId>(&json).unwrap(), id);
        }

        #[test]
        fn two_images_never_share_a_volume(a in ids(), b in ids()) {
            prop_assert_eq!(a == b, a.lv_name() == b.lv_name());
            // device-mapper's names have 127 bytes, and LVM doubles their hyphens.
            let vg: VgName = "sheath".parse().unwrap();
            let longest = |id: &ImageId| format!("{vg}-{}", id.lv_name().as_str().replace('-', "--")).len();
            prop_assert!(longest(&a) <= 127, "{}", a);
        }

        #[test]
        fn whatever_a_reference_is_made_of_it_shows_itself(text in "[a-z0-9@+:.-]{0,48}|\\PC{0,20}") {
            if let Ok(found) = text.parse::<ImageRef>() {
                prop_assert_eq!(&found.to_string(), &text);
            }
            let volume = format!("sheath-img-{text}");
            if let Some(id) = ImageId::from_lv_name(&volume) {
                prop_assert_eq!(id.lv_name().to_string(), volume);
            }
        }
    }

    #[test]
    fn an_image_from_before_there_were_versions_is_version_1_under_its_old_name() {
        let old: ImageId = serde_json::from_str("\"debian13\"").unwrap();
        assert_eq!(old.to_string(), "debian13@1");
        assert_eq!(old.lv_name().as_str(), "sheath-img-debian13");
        assert_eq!(ImageId::from_lv_name("sheath-img-debian13"), Some(old.clone()));
        assert_eq!("sheath.image=debian13".parse::<Tag>().unwrap(), Tag::Image(old.clone()));
        assert_eq!(Tag::Image(old).to_string(), "sheath.image=debian13");
    }

    #[test]
    fn an_image_has_one_spelling_only() {
        for wrong in
            ["debian13+1", "debian13+0", "debian13+02", "debian13+", "debian13+2+3", "+2", "debian13:2"]
        {
            assert_eq!(ImageId::from_lv_name(&format!("sheath-img-{wrong}")), None, "{wrong}");
        }
        for wrong in ["debian13:1", "debian13:", "debian13:02", "debian13+2", "debian13@2"] {
            assert!(format!("sheath.image={wrong}").parse::<Tag>().is_err(), "{wrong}");
        }
        for wrong in
            ["debian13@0", "debian13@", "debian13@01", "debian13@100000", "@3", "debian13@3@4", "a@-1"]
        {
            assert!(wrong.parse::<ImageRef>().is_err() && wrong.parse::<ImageId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn versions_end() {
        assert_eq!(Version::FIRST.next(), Some(Version(2)));
        assert_eq!(Version(HIGHEST).next(), None);
    }
}
