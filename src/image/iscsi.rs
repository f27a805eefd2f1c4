//! iSCSI LUNs as sources: `iscsi://[USER:SECRET@]HOST[:PORT]/IQN/LUN`, read by qemu's own initiator in the sandbox. This
//! machine's kernel logs in to nothing.
//!
//! The CHAP secret comes into the sandbox on standard input and goes to qemu in memory (memfd): it stands in no arguments and
//! in no file, and is shown to nobody. Inside, the URL is without it.

use std::{
    fmt,
    fs::File,
    io::{Read, Write},
    os::fd::AsRawFd,
    str::FromStr,
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use zeroize::Zeroizing;

use super::address::Address;
use crate::{
    error::{Context, Error, Result},
    model::Secret,
};

/// iSCSI's port (IANA).
const PORT: u16 = 3260;
/// How we are called: for targets that let in whom they know.
const INITIATOR: &str = "iqn.2008-11.org.linux-kvm:sheath";
/// Longest name of a target (RFC 7143, section 4.2.7.1), and of a user.
const LONGEST: usize = 223;
/// LUNs beyond this have another form of address, which libiscsi does not write.
const LARGEST_LUN: u16 = 16_383;
/// Longest secret: LIO's and most targets' end at 255.
const LONGEST_SECRET: u64 = 255;
/// qemu's name for the secret.
const CHAP: &str = "chap";

/// One LUN, in words that no option of qemu's can end at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lun {
    user: Option<String>,
    secret: Option<Secret>,
    address: Address,
    target: String,
    lun: u16,
}

impl Lun {
    /// What its URLs begin with.
    pub(super) const SCHEME: &str = "iscsi://";

    /// Returns the CHAP secret, as qemu reads it.
    pub(super) fn secret(&self) -> Vec<u8> {
        self.secret.as_ref().map(|secret| secret.expose().as_bytes().to_vec()).unwrap_or_default()
    }

    /// Takes the secret of a LUN that has one from our standard input, for a qemu that this process starts or becomes.
    ///
    /// # Errors
    /// The failing system call.
    pub(super) fn hand_on_secret(&self) -> Result<Handed> {
        let attempt = || "hand on the CHAP secret".to_owned();
        if self.user.is_none() {
            return Ok(Handed(None));
        }
        // Not by name: the pipe belongs to root, and we may read from it, but not open it once more as qemu would.
        let mut secret = Zeroizing::new(vec![]);
        std::io::stdin().take(LONGEST_SECRET).read_to_end(&mut secret).attempt(attempt)?;
        // Without CLOEXEC: it is meant for what is started.
        let memory = memfd_create(c"chap", MFdFlags::empty()).map_err(|e| Error::io(attempt(), e.into()))?;
        let mut memory = File::from(memory);
        memory.write_all(&secret).attempt(attempt)?;
        Ok(Handed(Some(memory)))
    }

    /// Returns the LUN as qemu's options have it: the disk's bytes, whatever they look like.
    pub(super) fn options(&self) -> String {
        let Self { user, address, target, lun, .. } = self;
        let chap = user
            .as_ref()
            .map_or(String::new(), |user| format!(",file.user={user},file.password-secret={CHAP}"));
        format!(
            "driver=raw,file.driver=iscsi,file.transport=tcp,file.portal={address},file.target={target},\
             file.lun={lun},file.initiator-name={INITIATOR},file.timeout=30{chap}"
        )
    }
}

/// A secret in memory, there for as long as this is.
#[derive(Debug)]
pub(super) struct Handed(Option<File>);

impl Handed {
    /// Returns qemu's arguments before the others: where the secret is, if there is one.
    pub(super) fn objects(&self) -> Vec<String> {
        let object = |file: &File| format!("secret,id={CHAP},file=/proc/self/fd/{}", file.as_raw_fd());
        self.0.iter().flat_map(|file| ["--object".to_owned(), object(file)]).collect()
    }
}

/// Returns the text with each `%XX` as what it stands for; only what is printed.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let code = u8::from_str_radix(part.get(..2)?, 16).ok()?;
        plain.push(char::from(code));
        plain.push_str(&part[2..]);
    }
    plain.chars().all(|c| c.is_ascii_graphic()).then_some(plain)
}

impl FromStr for Lun {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let lun = Self::without_secret(text)?;
        match (&lun.user, &lun.secret) {
            (Some(_), None) => {
                Err(bad("a user has a secret behind a colon; special characters stand as %XX in it"))
            }
            _ => Ok(lun),
        }
    }
}

fn bad(why: &str) -> Error {
    // Nothing of it is repeated: there may be a secret in it.
    Error::invalid(format!("the source is no iSCSI LUN (iscsi://[USER:SECRET@]HOST[:PORT]/IQN/LUN): {why}"))
}

impl Lun {
    /// Returns the LUN of a URL that may have a user without a secret, as those inside of a sandbox have.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid), with what is wrong with it and without the URL.
    pub(super) fn without_secret(text: &str) -> Result<Self> {
        let rest = text.strip_prefix(Self::SCHEME).ok_or_else(|| bad("it does not begin with iscsi://"))?;
        let mut parts = rest.split('/');
        let (Some(address), Some(target), Some(lun), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad("behind the host stand the target's name and the LUN's number"));
        };
        let (login, address) = match address.rsplit_once('@') {
            Some((login, address)) => (Some(login), address),
            None => (None, address),
        };
        let (user, secret) = login.map(credentials).transpose()?.unwrap_or_default();
        let address = Address::parse(address, PORT).map_err(bad)?;
        let named = ["iqn.", "eui.", "naa."].iter().any(|kind| target.starts_with(kind));
        if !named || target.len() > LONGEST || !is_word(target) {
            return Err(bad("its target's name is none (iqn.…)"));
        }
        let lun =
            lun.parse().ok().filter(|lun| *lun <= LARGEST_LUN).ok_or_else(|| bad("its LUN is no number"))?;
        Ok(Self { user, secret, address, target: target.to_owned(), lun })
    }
}

/// Returns user and secret of what stands before a host.
fn credentials(login: &str) -> Result<(Option<String>, Option<Secret>)> {
    let (user, secret) = login.split_once(':').map_or((login, None), |(user, secret)| (user, Some(secret)));
    let user = decoded(user).filter(|user| !user.is_empty() && user.len() <= LONGEST && is_word(user));
    let user = user.ok_or_else(|| bad("its user is none that an option can have"))?;
    let fits = |secret: &String| !secret.is_empty() && secret.len() as u64 <= LONGEST_SECRET;
    let secret = secret.map(|secret| {
        let secret = decoded(secret).filter(fits);
        secret.ok_or_else(|| bad("its secret is none: special characters stand as %XX in it"))
    });
    Ok((Some(user), secret.transpose()?.map(Secret::new)))
}

fn is_word(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '+'))
}

impl fmt::Display for Lun {
    /// Writes the LUN without its secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, address, target, lun, .. } = self;
        let user = user.as_ref().map_or(String::new(), |user| format!("{user}@"));
        write!(f, "iscsi://{user}{address}/{target}/{lun}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IQN: &str = "iqn.2003-01.org.example:disk.1";

    #[test]
    fn a_lun_has_a_target_and_shows_no_secret() {
        for (text, shown) in [
            (format!("iscsi://donor/{IQN}/0"), format!("iscsi://donor:3260/{IQN}/0")),
            (format!("iscsi://10.0.0.7:3261/{IQN}/7"), format!("iscsi://10.0.0.7:3261/{IQN}/7")),
            (format!("iscsi://[fe80::1]/{IQN}/1"), format!("iscsi://[fe80::1]:3260/{IQN}/1")),
            (format!("iscsi://ann:se%2Fcret%40@h/{IQN}/0"), format!("iscsi://ann@h:3260/{IQN}/0")),
        ] {
            let lun: Lun = text.parse().unwrap();
            assert_eq!(lun.to_string(), shown);
            assert!(!format!("{lun:?}{}", lun.options()).contains("/cret"), "{lun:?}");
            let inside = Lun::without_secret(&shown).unwrap();
            assert_eq!((inside.options(), inside.to_string()), (lun.options(), shown));
        }
        let lun: Lun = format!("iscsi://ann:se%2Fcret%40@h/{IQN}/0").parse().unwrap();
        assert_eq!(lun.secret(), b"se/cret@");
        assert!(lun.options().ends_with(",file.user=ann,file.password-secret=chap"), "{}", lun.options());
        let open: Lun = format!("iscsi://[fe80::1]/{IQN}/1").parse().unwrap();
        assert!(open.options().contains(",file.portal=[fe80::1]:3260,") && open.secret().is_empty());
        assert!(open.hand_on_secret().unwrap().objects().is_empty());
    }

    #[test]
    fn nothing_in_a_lun_ends_an_option_or_is_repeated_in_its_error() {
        for bad in [
            "iscsi://",
            "iscsi://h",
            "iscsi://h/iqn.x",
            "iscsi://h/iqn.x/",
            "iscsi://h/iqn.x/x",
            "iscsi://h/iqn.x/0/0",
            "iscsi://h/iqn.x/99999",
            "iscsi://h/disk/0",
            "iscsi://h/iqn.x,driver=file/0",
            "iscsi://h:0/iqn.x/0",
            "iscsi://h,file.lun=1/iqn.x/0",
            "iscsi://secret@h/iqn.x/0",
            "iscsi://ann:@h/iqn.x/0",
            "iscsi://a,b:secret@h/iqn.x/0",
            "iscsi://ann:secret%0A@h/iqn.x/0",
            "iscsi://ann:secret%zz@h/iqn.x/0",
            "iscsi://ann:sec/ret@h/iqn.x/0",
            "nbd://h/x",
        ] {
            let error = bad.parse::<Lun>().unwrap_err().to_string();
            assert!(!error.contains("secret@") && !error.contains("ann"), "{error}");
        }
    }
}
