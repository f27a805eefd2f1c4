//! What somebody else changed in an export's attributes and credentials, by name.
//!
//! An observation only says *that* a table of attributes is not ours, which keeps it cheap. This reads again and names
//! them, for the few times that something was found. What is missing as a whole is seen in the observation itself.

use super::{Lio, auth, profile};
use crate::{
    error::{Error, Result},
    host::configfs::Node,
    model::{Credentials, Difference, Export, Part, Secret},
};

/// Stand for a secret in what is told.
const OURS: &str = "ours";
const NOT_OURS: &str = "not ours";

impl Lio {
    /// Returns the attributes and credentials that are not what our verbs made them. A password is never told.
    ///
    /// # Errors
    /// As [`Lio::export`].
    pub fn differences(&self, export: &Export) -> Result<Vec<Difference>> {
        let read = || {
            let mut all = self.backstore_differences(export)?;
            let tpg = self.tpg(&export.target)?;
            if tpg.exists() {
                all.extend(tpg_differences(&tpg)?);
            }
            let acl = self.acl_node(&export.target, &export.initiator)?;
            if acl.exists() {
                let ours = self.keys.credentials(export.backstore.volume, export.chap);
                all.extend(acl_differences(&acl, &ours)?);
            }
            Ok(all)
        };
        read().map_err(|e: Error| e.while_doing(format!("compare target '{}'", export.target)))
    }

    fn backstore_differences(&self, export: &Export) -> Result<Vec<Difference>> {
        let (_, device) = self.backstore_nodes(export.backstore.volume)?;
        if !device.is_set("enable")? {
            return Ok(vec![]);
        }
        let differs = profile::backstore_differs(&device)?.into_iter();
        let named = differs.map(|(attribute, now, ours)| {
            Difference::changed(Part::Backstore, format!("backstore/{attribute}"), &ours, &now)
        });
        Ok(named.collect())
    }
}

fn tpg_differences(tpg: &Node) -> Result<Vec<Difference>> {
    let mut all = vec![];
    for (attribute, ours) in profile::TPG {
        let now = tpg.read_if_there(attribute)?.unwrap_or_default();
        if now != ours {
            all.push(Difference::changed(Part::Target, format!("{}/{attribute}", tpg.name()), ours, &now));
        }
    }
    Ok(all)
}

fn acl_differences(acl: &Node, ours: &Credentials) -> Result<Vec<Difference>> {
    let mutual = ours.mutual.as_ref().map(|(user, password)| (user.as_str(), password));
    let mut all = pair_differences(acl, auth::BLADE, Some((&ours.user, &ours.password)))?;
    all.extend(pair_differences(acl, auth::TARGET, mutual)?);
    if let Some(now) = acl.read_if_there(auth::OWN_AUTHENTICATION)?.filter(|now| now != "-1") {
        all.push(Difference::changed(Part::Acl, object(acl, auth::OWN_AUTHENTICATION), "-1", &now));
    }
    Ok(all)
}

fn pair_differences(
    acl: &Node,
    [user, password]: [&str; 2],
    ours: Option<(&str, &Secret)>,
) -> Result<Vec<Difference>> {
    let mut all = vec![];
    let now = acl.read_line(user)?;
    let wanted = ours.map_or("", |(user, _)| user);
    if !same(&now, wanted) {
        all.push(Difference::changed(Part::Acl, object(acl, user), wanted, &now));
    }
    let now = acl.read_line(password)?;
    if !same(&now, ours.map_or("", |(_, password)| password.expose())) {
        all.push(Difference::changed(Part::Acl, object(acl, password), OURS, NOT_OURS));
    }
    Ok(all)
}

fn same(now: &str, wanted: &str) -> bool {
    now == wanted || (wanted.is_empty() && auth::is_unset(now))
}

fn object(acl: &Node, attribute: &str) -> String {
    format!("{}/acls/{}/{attribute}", super::TPG, acl.name())
}

#[cfg(test)]
mod tests {
    use super::{super::fake::Fake, *};
    use crate::model::Chap;

    fn export() -> Export {
        Export {
            backstore: Fake::backstore(),
            target: Fake::target(),
            initiator: Fake::initiator(),
            portals: vec![Fake::portal()],
            chap: Chap::OneWay,
        }
    }

    fn told(fake: &Fake) -> Vec<String> {
        fake.lio.differences(&export()).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_hand_edit_of_an_attribute_is_named_from_and_to() {
        let fake = Fake::new();
        let acl = fake.make_everything();
        fake.run_all();
        assert_eq!(told(&fake), [""; 0]);
        let tpg = fake.lio.tpg(&Fake::target()).unwrap();
        let (_, device) = fake.lio.backstore_nodes(Fake::backstore().volume).unwrap();
        device.write("attrib/emulate_tpu", "0").unwrap();
        tpg.write("attrib/demo_mode_discovery", "1").unwrap();
        tpg.write("param/AuthMethod", "CHAP,None").unwrap();
        acl.write("auth/userid", "mallory").unwrap();
        acl.write("attrib/authentication", "0").unwrap();
        let acl = "tpgt_1/acls/iqn.2026-11.org.example:i-1";
        let user = fake.lio.keys.credentials(Fake::backstore().volume, Chap::OneWay).user;
        assert_eq!(
            told(&fake),
            [
                "backstore/attrib/emulate_tpu: from '1' to '0'".to_owned(),
                "tpgt_1/attrib/demo_mode_discovery: from '0' to '1'".to_owned(),
                "tpgt_1/param/AuthMethod: from 'CHAP' to 'CHAP,None'".to_owned(),
                format!("{acl}/auth/userid: from '{user}' to 'mallory'"),
                format!("{acl}/attrib/authentication: from '-1' to '0'"),
            ]
        );
    }

    #[test]
    fn a_password_is_never_told_ours_or_not() {
        let fake = Fake::new();
        let acl = fake.make_everything();
        fake.run_all();
        let ours = acl.read("auth/password").unwrap();
        acl.write("auth/password", "hunter2hunter2").unwrap();
        acl.write("auth/password_mutual", "hunter2hunter2").unwrap();
        let told = told(&fake).join("\n");
        assert_eq!(told.matches("from 'ours' to 'not ours'").count(), 2, "{told}");
        assert!(!told.contains("hunter2") && !told.contains(&ours), "{told}");
    }
}
