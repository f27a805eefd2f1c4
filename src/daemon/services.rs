//! What the services beside the agent are told: dnsmasq and sheath-bootd read files that follow from the configuration.

use std::path::Path;

use crate::{
    config::Config,
    error::Result,
    host::dnsmasq::{self, Places},
    policy::chassis::ServiceFile,
};

/// dnsmasq's leases.
pub(super) const LEASES: &str = "/var/lib/sheath-dnsmasq/leases";
/// iPXE's loaders, for TFTP.
const TFTP: &str = "/usr/lib/sheath/tftp";
/// Where blades ask for scripts.
const PORT: u16 = 8078;

/// Returns the files, for services that find them below `run`.
///
/// # Errors
/// An address or a path that does not fit into dnsmasq's language; checked configurations give none.
pub(super) fn files(config: &Config, run: &Path) -> Result<Vec<ServiceFile>> {
    let listen = format!("{}:{PORT}", config.chassis.address.0);
    let places = Places::new(LEASES, TFTP, &format!("http://{listen}/v1/start.ipxe"))?;
    let file = |unit: &str, name: &str, content: String| ServiceFile {
        unit: unit.to_owned(),
        path: run.join(name),
        content,
    };
    Ok(vec![
        file("sheath-dnsmasq.service", "dnsmasq.conf", dnsmasq::render(config, &places)),
        file("sheath-bootd.service", "bootd.env", format!("SHEATH_BOOTD_LISTEN={listen}\n")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn both_services_are_told_the_chassis_address() {
        let files = files(&sample::config(), Path::new("/run/sheath")).unwrap();
        assert_eq!(files.len(), 2);
        assert!(files.iter().all(|file| file.content.contains("10.77.0.1:8078")));
    }
}
