//! What each sandbox shows its program, and what is told of its end.

use super::*;

fn image() -> ImageName {
    "debian13".parse().unwrap()
}

#[test]
fn the_fetch_has_the_network_and_no_word_of_the_url_in_its_arguments() {
    let args = Sandbox::curl(&image(), Path::new("/p/root"), Duration::from_secs(10)).args();
    assert!(args.contains(&"--unit=sheath-import-debian13-fetch.service".to_owned()));
    assert!(args.contains(&"--property=RuntimeMaxSec=10".to_owned()));
    assert!(!args.iter().any(|arg| arg.contains("PrivateNetwork")));
    assert!(args.ends_with(&["--", "/usr/bin/curl", "--disable", "--config", "-"].map(str::to_owned)));
}

#[test]
fn our_own_program_has_no_network_and_sees_one_file_and_one_device() {
    let words = ["internal-convert", "raw"];
    let sandbox = Sandbox::own(&image(), Path::new("/p/root"), &words, &Seen::File("/p/source".into()));
    let args = sandbox.with_device(Path::new("/dev/dm-7")).args();
    for property in [
        "PrivateNetwork=yes",
        "DynamicUser=yes",
        "RootDirectory=/p/root",
        "BindReadOnlyPaths=/p/source:/source",
        "BindPaths=/dev/dm-7:/dev/image",
        "DeviceAllow=/dev/dm-7 rw",
    ] {
        assert!(args.contains(&format!("--property={property}")), "{property}");
    }
    assert!(args.contains(&"--unit=sheath-import-debian13-convert.service".to_owned()));
    assert!(args.ends_with(&["--", "/usr/bin/sheath", "internal-convert", "raw"].map(str::to_owned)));
}

#[test]
fn a_donors_disk_is_seen_but_cannot_be_written_and_an_export_is_seen_over_the_network_alone() {
    let own = |source: &Seen| {
        let sandbox = Sandbox::own(&image(), Path::new("/p/root"), &["internal-convert"], source);
        sandbox.with_device(Path::new("/dev/dm-7")).args()
    };
    let device = own(&Seen::Device("/dev/sdc".into()));
    for property in ["PrivateNetwork=yes", "BindReadOnlyPaths=/dev/sdc:/dev/donor", "DeviceAllow=/dev/sdc r"]
    {
        assert!(device.contains(&format!("--property={property}")), "{property}");
    }
    assert!(!device.iter().any(|arg| arg.contains("/dev/sdc rw")));
    let export = own(&Seen::Export("nbd://donor/disk".parse().unwrap()));
    assert!(!export.iter().any(|arg| arg.contains("PrivateNetwork") || arg.contains(SOURCE)));
    for args in [device, export] {
        assert!(args.contains(&"--property=CapabilityBoundingSet=".to_owned()));
        assert_eq!(args.iter().filter(|arg| arg.contains("SupplementaryGroups")).count(), 1);
    }
}

#[test]
fn a_failure_is_told_in_words_without_the_command() {
    let mut sandbox = Sandbox::curl(&image(), Path::new("/p/root"), Duration::from_secs(10));
    sandbox.own = true;
    let told = |end: &str| {
        let error = Error::new(Kind::Failed, format!("run '/usr/bin/systemd-run --property=x': {end}"));
        let told = sandbox.explain(&error);
        (told.kind(), told.to_string())
    };
    let refused =
        told("exit status: 3: sheath: error: accept image '/source': it has a backing file: flatten it");
    assert_eq!(refused, (Kind::Invalid, "it has a backing file: flatten it".into()));
    let missing = told("exit status: 4: sheath: error: start '/usr/bin/xz' (Debian package xz-utils)");
    assert_eq!(missing, (Kind::Missing, "start '/usr/bin/xz' (Debian package xz-utils)".into()));
    assert_eq!(told("exit status: 226: ").0, Kind::Missing);
    let failed = told("exit status: 22: curl: (22) The requested URL returned error: 404");
    let unit = "unit 'sheath-import-debian13-fetch.service'";
    let words = format!("{unit}: exit status 22: curl: (22) The requested URL returned error: 404");
    assert_eq!(exit_status(&Error::new(Kind::Failed, words.clone())), Some(22));
    assert_eq!(failed, (Kind::Failed, words));
    assert_eq!(told("signal: 9 (SIGKILL)").1, format!("{unit} did not start or did not end"));
}

#[test]
fn a_capability_is_given_only_for_a_file_that_not_everybody_may_read() {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    let reading = |mode| {
        file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        reader(file.path()).collect::<Vec<_>>()
    };
    assert_eq!(reading(0o644), ["CapabilityBoundingSet="]);
    let secret = reading(0o600);
    assert!(secret.contains(&"AmbientCapabilities=CAP_DAC_READ_SEARCH"));
    assert!(secret.contains(&"SystemCallFilter=~open_by_handle_at"));
}
