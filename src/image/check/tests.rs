//! What is said of an image's facts, finding by finding.

use super::*;
use crate::image::facts::{Identity, Iscsi, Mbr, Network, Os, Partition};

/// Returns an image with nothing wrong in it.
fn good() -> Facts {
    let partition = |number, fs: &str| Partition { number, fs: fs.into(), ..Partition::default() };
    Facts {
        partitions: vec![partition(1, ""), partition(2, "vfat"), partition(3, "ext4")],
        root: Some(3),
        os: Some(Os { id: "debian".into(), name: "Debian 13".into(), ..Os::default() }),
        kernels: vec![Kernel {
            version: "6.12.1".into(),
            initramfs: Some(Initramfs {
                path: "boot/initrd.img-6.12.1".into(),
                unread: None,
                initiator: true,
                tcp: true,
                ibft: true,
            }),
        }],
        boot: Boot {
            esp: true,
            removable: true,
            bios_partition: true,
            bios_code: true,
            bios_core: true,
            cmdline: "root=LABEL=root console=ttyS0,115200".into(),
            ..Boot::default()
        },
        iscsi: Iscsi {
            maker: Some(Maker::InitramfsTools),
            daemon: true,
            automatic: true,
            patient: true,
            name_from_ibft: true,
            initiator: None,
        },
        network: Network { networkd: true, kept: true, ..Network::default() },
        cloud_init: true,
        ..Facts::default()
    }
}

/// Returns what a change of a good image makes worse.
fn bad(change: impl FnOnce(&mut Facts)) -> (Checkup, Vec<(String, Judgement)>) {
    let mut facts = good();
    change(&mut facts);
    let checkup = judge(&facts);
    let bad = checkup.findings.iter().filter(|finding| finding.judgement.is_bad());
    let bad = bad.map(|finding| (finding.about.clone(), finding.judgement)).collect();
    (checkup, bad)
}

#[test]
fn an_mbr_keeps_every_firmware_from_booting_and_the_sealer_mends_it() {
    let with = |mbr: Mbr| {
        bad(|facts| {
            facts.partitions.push(Partition { number: 5, fs: "swap".into(), ..Partition::default() });
            facts.boot.mbr = Some(mbr);
        })
    };
    let (checkup, found) = with(Mbr { dropped: vec![5], refusal: None });
    assert_eq!(found, [("mbr".into(), Judgement::Wrong)], "swap behind root is left out");
    assert!(!checkup.bios && !checkup.uefi);
    let fix = |checkup: &Checkup| checkup.findings.iter().find(|f| f.about == "mbr").unwrap().fix.clone();
    assert_eq!(fix(&checkup).as_deref(), Some(SEAL));
    let (checkup, found) = with(Mbr { dropped: vec![], refusal: Some("move it".into()) });
    assert_eq!(found.len(), 2, "root is not the last one: {found:?}");
    assert_eq!(fix(&checkup).as_deref(), Some("move it"));
}

#[test]
fn a_root_that_is_named_by_its_place_is_wrong() {
    for root in ["/dev/sda1", "PARTUUID=0a0b0c0d-01", "/dev/nvme0n1p1"] {
        let (_, found) = bad(|facts| facts.boot.cmdline = format!("ro root={root} console=ttyS0"));
        assert_eq!(found, [("kernel-root".into(), Judgement::Wrong)], "{root}");
    }
    for root in ["UUID=x", "PARTUUID=6f1f2b1c-0000-4000-8000-000000000000", "/dev/mapper/vg-root"] {
        let (_, found) = bad(|facts| facts.boot.cmdline = format!("root={root} console=ttyS0"));
        assert_eq!(found, [], "{root}");
    }
}

#[test]
fn a_good_image_boots_by_both_firmwares_and_has_nothing_to_mend() {
    let checkup = judge(&good());
    assert!(checkup.is_clean() && checkup.bios && checkup.uefi, "{checkup:#?}");
    assert_eq!(checkup.kernel.as_deref(), Some("6.12.1"));
}

#[test]
fn an_initramfs_without_the_initiator_keeps_both_firmwares_from_booting() {
    let (checkup, bad) = bad(|facts| {
        let initramfs = facts.kernels[0].initramfs.as_mut().unwrap();
        (initramfs.initiator, initramfs.ibft) = (false, false);
    });
    assert_eq!(bad, [("initramfs".to_owned(), Judgement::Missing)]);
    assert!(!checkup.bios && !checkup.uefi);
    let text = &checkup.findings.iter().find(|finding| finding.about == "initramfs").unwrap().text;
    assert!(text.contains("iSCSI initiator") && text.contains("iscsi_ibft") && !text.contains("iscsi_tcp"));
}

#[test]
fn the_newest_kernel_is_the_one_that_counts() {
    let (checkup, _) = bad(|facts| {
        facts.kernels.push(Kernel { version: "6.12.2".into(), initramfs: None });
    });
    assert!(!checkup.bios && !checkup.uefi);
}

#[test]
fn a_loader_at_the_vendors_path_alone_is_a_uefi_fault_and_no_bios_fault() {
    let (checkup, bad) = bad(|facts| {
        facts.boot.removable = false;
        facts.boot.loaders = vec!["EFI/debian/grubx64.efi".into()];
    });
    assert_eq!(bad, [("uefi".to_owned(), Judgement::Missing)]);
    assert!(checkup.bios && !checkup.uefi);
}

#[test]
fn a_disk_without_grubs_core_is_a_bios_fault_and_no_uefi_fault() {
    for change in [
        (|facts: &mut Facts| facts.boot.bios_core = false) as fn(&mut Facts),
        |facts| facts.boot.bios_code = false,
        |facts| facts.boot.bios_partition = false,
    ] {
        let (checkup, bad) = bad(change);
        assert_eq!(bad, [("bios".to_owned(), Judgement::Missing)]);
        assert!(!checkup.bios && checkup.uefi);
    }
}

#[test]
fn each_leftover_of_identity_is_wrong_and_keeps_nobody_from_booting() {
    let some = || vec!["x".to_owned()];
    let (checkup, bad) = bad(|facts| {
        facts.identity = Identity {
            machine_id: true,
            dbus_machine_id: true,
            ssh_keys: some(),
            leases: some(),
            seeds: some(),
            cloud_state: true,
            net_names: some(),
        };
    });
    assert_eq!(bad.len(), 7, "{bad:?}");
    assert!(bad.iter().all(|(_, judgement)| *judgement == Judgement::Wrong));
    assert!(checkup.bios && checkup.uefi);
    assert!(checkup.findings.iter().filter(|f| f.judgement.is_bad()).all(|f| f.fix.is_some()));
}

#[test]
fn networkd_without_a_kept_boot_nic_hangs_at_reboot() {
    let (_, found) = bad(|facts| facts.network.kept = false);
    assert_eq!(found, [("boot-nic".to_owned(), Judgement::Wrong)]);
    let (_, found) = bad(|facts| facts.network = Network { ifupdown: true, ..Network::default() });
    assert_eq!(found, []);
}

#[test]
fn a_name_of_its_own_and_no_name_at_all_are_told_apart() {
    let own = |initiator: Option<&str>| {
        let initiator = initiator.map(str::to_owned);
        bad(|facts| (facts.iscsi.name_from_ibft, facts.iscsi.initiator) = (false, initiator)).1
    };
    assert_eq!(own(Some("GenerateName=yes")), [("initiator-name".to_owned(), Judgement::Wrong)]);
    assert_eq!(own(None), [("initiator-name".to_owned(), Judgement::Missing)]);
}

#[test]
fn a_disk_without_a_system_says_so_and_nothing_of_what_is_not_there() {
    let checkup = judge(&Facts { boot: good().boot, ..Facts::default() });
    let about: Vec<_> = checkup.findings.iter().map(|finding| finding.about.as_str()).collect();
    assert_eq!(about, ["root", "bios", "uefi"]);
    assert!(!checkup.bios && !checkup.uefi && !checkup.is_clean());
}

#[test]
fn a_root_that_is_not_last_would_not_grow() {
    let (checkup, bad) = bad(|facts| facts.partitions.swap(1, 2));
    assert_eq!(bad, [("root".to_owned(), Judgement::Wrong)]);
    assert!(checkup.bios, "it boots all the same");
}

#[test]
fn what_a_blades_layout_has_put_behind_root_keeps_no_clone_from_growing() {
    let behind = |ours| Partition { number: 4, fs: "vfat".into(), ours, ..Partition::default() };
    let (checkup, _) = bad(|facts| facts.partitions.push(behind(true)));
    assert!(checkup.is_clean(), "{checkup:#?}");
    let (_, found) = bad(|facts| facts.partitions.push(behind(false)));
    assert_eq!(found, [("root".to_owned(), Judgement::Wrong)]);
}

#[test]
fn an_initramfs_that_could_not_be_read_is_no_fault() {
    let (checkup, bad) = bad(|facts| {
        let unread = Initramfs { unread: Some("no lsinitramfs".into()), ..Initramfs::default() };
        facts.kernels[0].initramfs = Some(unread);
    });
    assert!(bad.is_empty() && checkup.bios);
}
