//! CHAP on an ACL: what its `auth/` holds, set in place and compared.
//!
//! The kernel keeps these texts byte for byte, a trailing newline too, and takes `NULL` for "not set". Whose credentials
//! they are comes from `keys`; nothing here shows one.

use zeroize::Zeroizing;

use super::any;
use crate::{
    error::Result,
    host::{AuthState, configfs::Node},
    model::{Credentials, Secret},
    plan::Changed,
};

/// What LIO takes for "not set", and then reads back as such.
const UNSET: &str = "NULL";
/// Overrides the TPG's `authentication`; -1 inherits it. Not in every kernel.
pub(super) const OWN_AUTHENTICATION: &str = "attrib/authentication";

/// The files of the blade's half and of the target's: user, password.
pub(super) const BLADE: [&str; 2] = ["auth/userid", "auth/password"];
pub(super) const TARGET: [&str; 2] = ["auth/userid_mutual", "auth/password_mutual"];

/// A user and a password, as one half of `auth/` holds them.
#[derive(PartialEq, Eq)]
struct Pair {
    user: Zeroizing<String>,
    password: Zeroizing<String>,
}

impl Pair {
    fn new(user: &str, password: &Secret) -> Self {
        Self { user: Zeroizing::new(user.to_owned()), password: Zeroizing::new(password.expose().to_owned()) }
    }

    fn read(acl: &Node, [user, password]: [&str; 2]) -> Result<Self> {
        Ok(Self { user: acl.read_line(user)?, password: acl.read_line(password)? })
    }

    fn is_unset(&self) -> bool {
        is_unset(&self.user) && is_unset(&self.password)
    }
}

/// Makes the ACL ask for these credentials; one-way ones take the mutual ones away.
pub(super) fn set(acl: &Node, credentials: &Credentials) -> Result<Changed> {
    let mutual = credentials.mutual.as_ref().map(|(user, password)| (user.as_str(), password));
    Ok(any([
        inherit(acl)?,
        set_pair(acl, BLADE, Some((&credentials.user, &credentials.password)))?,
        set_pair(acl, TARGET, mutual)?,
    ]))
}

/// Makes an ACL that was just made, and has no credentials, ask for these.
pub(super) fn set_new(acl: &Node, credentials: &Credentials) -> Result<()> {
    let write = |[user, password]: [&str; 2], name: &str, secret: &Secret| {
        acl.write_secret(user, &Secret::new(name.to_owned()))?;
        acl.write_secret(password, secret)
    };
    write(BLADE, &credentials.user, &credentials.password)?;
    match &credentials.mutual {
        Some((user, password)) => write(TARGET, user, password),
        None => Ok(()),
    }
}

/// Takes the blade's credentials away: nobody can log in by this ACL any more.
pub(super) fn clear(acl: &Node) -> Result<Changed> {
    Ok(any([inherit(acl)?, set_pair(acl, BLADE, None)?]))
}

/// Returns whose credentials the ACL holds; `ours` are the mutual ones, which hold the one-way ones.
pub(super) fn state(acl: &Node, ours: &Credentials) -> Result<AuthState> {
    let (blade, target) = (Pair::read(acl, BLADE)?, Pair::read(acl, TARGET)?);
    let inherits = acl.read_if_there(OWN_AUTHENTICATION)?.is_none_or(|value| value == "-1");
    let (our_blade, our_target) = (
        Pair::new(&ours.user, &ours.password),
        ours.mutual.as_ref().map(|(user, password)| Pair::new(user, password)),
    );
    Ok(match (blade, target) {
        _ if !inherits => AuthState::Foreign,
        (blade, target) if blade.is_unset() && target.is_unset() => AuthState::Unset,
        (blade, target) if blade == our_blade && target.is_unset() => AuthState::OneWay,
        (blade, target) if blade == our_blade && Some(&target) == our_target.as_ref() => AuthState::Mutual,
        _ => AuthState::Foreign,
    })
}

/// Takes back a foreign "no CHAP for this initiator".
fn inherit(acl: &Node) -> Result<Changed> {
    if acl.has(OWN_AUTHENTICATION) { acl.set(OWN_AUTHENTICATION, "-1") } else { Ok(Changed::AlreadyTrue) }
}

fn set_pair(acl: &Node, [user, password]: [&str; 2], wanted: Option<(&str, &Secret)>) -> Result<Changed> {
    let our_user = wanted.map(|(user, _)| Secret::new(user.to_owned()));
    Ok(any([
        set_text(acl, user, our_user.as_ref())?,
        set_text(acl, password, wanted.map(|(_, password)| password))?,
    ]))
}

fn set_text(acl: &Node, attribute: &str, wanted: Option<&Secret>) -> Result<Changed> {
    let now = acl.read_line(attribute)?;
    match wanted {
        Some(text) if *now == text.expose() => Ok(Changed::AlreadyTrue),
        Some(text) => acl.write_secret(attribute, text).map(|()| Changed::Changed),
        None if is_unset(&now) => Ok(Changed::AlreadyTrue),
        None => acl.write(attribute, UNSET).map(|()| Changed::Changed),
    }
}

pub(super) fn is_unset(text: &str) -> bool {
    text.is_empty() || text.starts_with(UNSET)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Acl, fake::Fake},
        *,
    };
    use crate::model::Chap;

    fn seen(fake: &Fake, acl: &Node) -> AuthState {
        let tpg = fake.lio.tpg(&Fake::target()).unwrap();
        fake.lio.observe_acl(acl, &tpg, Fake::backstore().volume).unwrap().auth
    }

    #[test]
    fn credentials_are_repaired_in_place_and_one_way_clears_mutual() {
        let fake = Fake::new();
        let (node, initiator) = (fake.make_acl(), Fake::initiator());
        let (one, both) = (Fake::acl(&initiator), Acl { chap: Chap::Mutual, ..Fake::acl(&initiator) });
        assert_eq!(seen(&fake, &node), AuthState::Unset);
        for (acl, state) in [(one, AuthState::OneWay), (both, AuthState::Mutual), (one, AuthState::OneWay)] {
            assert_eq!(fake.lio.acl(&Fake::target(), &acl).unwrap(), Changed::Changed);
            assert_eq!(seen(&fake, &node), state);
            assert_eq!(fake.lio.acl(&Fake::target(), &acl).unwrap(), Changed::AlreadyTrue);
        }
        assert_eq!(node.read("auth/password_mutual").unwrap(), "NULL");
    }

    #[test]
    fn a_password_with_a_newline_is_not_ours() {
        let fake = Fake::new();
        let (node, initiator) = (fake.make_acl(), Fake::initiator());
        fake.lio.acl(&Fake::target(), &Fake::acl(&initiator)).unwrap();
        let password = node.read("auth/password").unwrap();
        // The kernel adds one newline of its own when it prints.
        fake.raw(&node, "auth/password", format!("{password}\n").as_bytes());
        assert_eq!(seen(&fake, &node), AuthState::OneWay);
        fake.raw(&node, "auth/password", format!("{password}\n\n").as_bytes());
        assert_eq!(seen(&fake, &node), AuthState::Foreign);
        assert_eq!(fake.lio.acl(&Fake::target(), &Fake::acl(&initiator)).unwrap(), Changed::Changed);
        assert_eq!(seen(&fake, &node), AuthState::OneWay);
    }

    #[test]
    fn an_acl_that_needs_no_chap_is_foreign_and_put_right() {
        let fake = Fake::new();
        let (node, initiator) = (fake.make_acl(), Fake::initiator());
        fake.lio.acl(&Fake::target(), &Fake::acl(&initiator)).unwrap();
        node.write(OWN_AUTHENTICATION, "0").unwrap();
        assert_eq!(seen(&fake, &node), AuthState::Foreign);
        fake.lio.acl(&Fake::target(), &Fake::acl(&initiator)).unwrap();
        assert_eq!(seen(&fake, &node), AuthState::OneWay);
    }

    #[test]
    fn a_kernel_without_authentication_per_acl_is_fine() {
        let fake = Fake::new();
        let (node, initiator) = (fake.make_acl(), Fake::initiator());
        std::fs::remove_file(node.path().join(OWN_AUTHENTICATION)).unwrap();
        fake.lio.acl(&Fake::target(), &Fake::acl(&initiator)).unwrap();
        assert_eq!(seen(&fake, &node), AuthState::OneWay);
    }
}
