//! The appliance's master key, and the CHAP credentials derived from it.
//!
//! One file of 32 random bytes is all that has to be kept: every blade's password follows from it and from the id of
//! its disk, so none is stored and a lost state file cannot lock a blade out. Who is given the credentials, and where
//! they are written, is decided elsewhere.

use std::{
    fmt,
    fs::{self, File},
    io::Read,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::file;
use crate::{
    error::{Context, Error, Kind, Result},
    model::{Chap, Credentials, Secret, VolumeId},
};

/// Bytes in the key.
const KEY_BYTES: usize = 32;

/// Characters in a CHAP secret. 16 is the most that Microsoft's initiator takes (12 to 16); of 32 different ones each,
/// they hold 80 bits.
const SECRET_CHARS: usize = 16;

/// 5 bits a character, none of which needs quoting in an iPXE script, a URL or a kernel command line.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The appliance's secret. `Debug` prints `***`; memory is wiped when it is dropped.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; KEY_BYTES]>);

/// Whose password is derived: the two never share one (RFC 7143 §12.1.3 forbids it).
#[derive(Clone, Copy)]
enum Side {
    Blade,
    Target,
}

impl MasterKey {
    /// Returns the key made of these bytes.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the key that `path` holds.
    ///
    /// # Errors
    /// [`Kind::Missing`] where there is no such file, [`Kind::Denied`] where others may read it, [`Kind::Invalid`]
    /// where it does not hold 32 bytes. The text says what to do about it.
    pub fn load(path: &Path) -> Result<Self> {
        let shown = path.display();
        let file = File::open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::io(format!("read master key '{shown}': 'sheath setup' makes it, or restore a copy"), e)
            }
            _ => Error::io(format!("read master key '{shown}'"), e),
        })?;
        let mode = file.metadata().attempt(|| format!("stat '{shown}'"))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let fix = format!("run 'chmod 0600 {shown}'");
            return Err(Error::new(
                Kind::Denied,
                format!("master key '{shown}' is open to others (mode {mode:04o}): {fix}"),
            ));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BYTES + 1));
        file.take(KEY_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .attempt(|| format!("read master key '{shown}'"))?;
        let exact =
            <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).ok().filter(|key| key.iter().any(|&b| b != 0));
        exact.map(Self::from_bytes).ok_or_else(|| {
            Error::invalid(format!(
                "master key '{shown}' is not {KEY_BYTES} random bytes: restore a copy of it"
            ))
        })
    }

    /// Returns the key that `path` holds, after making it from the kernel's random numbers where there is none.
    ///
    /// # Errors
    /// As [`MasterKey::load`]; a file that is there and cannot be used is never replaced.
    pub fn create(path: &Path) -> Result<Self> {
        // Not through `load`'s kind: an unreadable folder must not look like a missing key.
        if fs::symlink_metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
            let mut bytes = Zeroizing::new([0; KEY_BYTES]);
            getrandom::fill(bytes.as_mut_slice()).map_err(|e| {
                Error::new(Kind::Failed, format!("make master key '{}'", path.display())).because(e)
            })?;
            file::save(path, bytes.as_slice(), 0o600)?;
        }
        Self::load(path)
    }

    /// Returns what the blade with this disk logs in with. The same key and volume always give the same answer, and
    /// mutual CHAP only adds to the one-way credentials.
    pub fn credentials(&self, volume: VolumeId, chap: Chap) -> Credentials {
        let id = &volume.to_string()[..12];
        let mutual = match chap {
            Chap::OneWay => None,
            Chap::Mutual => Some((format!("t-{id}"), self.secret(volume, Side::Target))),
        };
        Credentials { user: format!("b-{id}"), password: self.secret(volume, Side::Blade), mutual }
    }

    fn secret(&self, volume: VolumeId, side: Side) -> Secret {
        let domain: &[u8] = match side {
            Side::Blade => b"sheath chap 1 blade\0",
            Side::Target => b"sheath chap 1 target\0",
        };
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.0.as_slice()).expect("HMAC takes a key of any length");
        mac.update(domain);
        mac.update(&volume.0.to_be_bytes());
        let digest = Zeroizing::new(<[u8; 32]>::from(mac.finalize().into_bytes()));
        Secret::new(
            digest.iter().take(SECRET_CHARS).map(|&b| char::from(ALPHABET[usize::from(b & 31)])).collect(),
        )
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    const VOLUME: VolumeId = VolumeId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);

    fn key() -> MasterKey {
        MasterKey::from_bytes([7; KEY_BYTES])
    }

    #[test]
    fn credentials_are_the_same_for_ever() {
        let all = key().credentials(VOLUME, Chap::Mutual);
        assert_eq!(all.user, "b-0123456789ab");
        // A change here locks out every blade that is running.
        assert_eq!(all.password.expose(), "7zxse46jieexvusi");
        let (user, password) = all.mutual.unwrap();
        assert_eq!((user.as_str(), password.expose()), ("t-0123456789ab", "67k4k4ffc3cxmcr3"));
    }

    #[test]
    fn one_way_is_mutual_without_its_second_half() {
        let (one, both) = (key().credentials(VOLUME, Chap::OneWay), key().credentials(VOLUME, Chap::Mutual));
        assert_eq!((&one.user, &one.password, one.mutual), (&both.user, &both.password, None));
    }

    #[test]
    fn no_two_secrets_are_alike() {
        let mut seen = std::collections::BTreeSet::new();
        for key in [key(), MasterKey::from_bytes([8; KEY_BYTES])] {
            for volume in (0..50).map(|n| VolumeId(VOLUME.0 + n)) {
                let all = key.credentials(volume, Chap::Mutual);
                assert!(seen.insert(all.password.expose().to_owned()));
                assert!(seen.insert(all.mutual.unwrap().1.expose().to_owned()));
            }
        }
        assert!(seen.iter().all(|s| s.len() == 16 && s.bytes().all(|c| ALPHABET.contains(&c))));
    }

    #[test]
    fn a_made_key_is_private_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        let made = MasterKey::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(made.0, MasterKey::create(&path).unwrap().0);
        assert_eq!(format!("{made:?}"), "***");
    }

    #[test]
    fn a_missing_key_says_what_makes_it() {
        let error = MasterKey::load(Path::new("/nowhere/master.key")).unwrap_err();
        assert_eq!(error.kind(), Kind::Missing);
        assert!(error.to_string().contains("sheath setup"), "{error}");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_command() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        MasterKey::create(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let error = MasterKey::create(&path).unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        assert!(error.to_string().contains("chmod 0600"), "{error}");
    }

    #[test]
    fn a_damaged_key_is_refused_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        for bad in [&[1; 31][..], &[1; 33], &[0; 32], &[]] {
            file::save(&path, bad, 0o600).unwrap();
            assert_eq!(MasterKey::create(&path).unwrap_err().kind(), Kind::Invalid);
            assert_eq!(fs::read(&path).unwrap(), bad);
        }
    }
}
