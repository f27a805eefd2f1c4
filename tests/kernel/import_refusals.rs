//! Imports that are refused, each with its reason and with nothing left of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use sheath::{
    error::Kind,
    image::Check,
    model::{Bytes, Role},
};

use crate::{
    guest::run,
    import::{Lab, assert_imported, assert_refused, ready, volume},
    lvm::{image_in, pool},
};

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_refuses_an_image_that_points_outside_and_leaves_nothing() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    lab.sh("qemu-img create -f qcow2 -F raw -b /etc/shadow evil.qcow2");
    lab.sh("qemu-img create -f vmdk disk.vmdk 48M && qemu-img create -f vmdk -F vmdk -b disk.vmdk evil.vmdk");
    lab.sh("qemu-img create -f vmdk -o subformat=monolithicFlat flat.vmdk 48M");
    for (file, why) in [
        ("evil.qcow2", "backing file"),
        ("evil.vmdk", "parent disk"),
        ("flat.vmdk", "data is in other files"),
    ] {
        assert_refused(lab.import("evil", &lab.text(file)).0, "evil", Kind::Invalid, why);
    }
    let nothing = lab.import("nothing", "/nowhere/at all.img").0;
    assert_refused(nothing, "nothing", Kind::Missing, "there is no '/nowhere/at all.img'");
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_refuses_a_disk_that_is_cut_short_although_its_header_is_whole() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    for format in ["qcow2", "vmdk", "vdi"] {
        lab.sh(&format!("qemu-img convert -O {format} disk.raw short && truncate -s -700K short"));
        assert_refused(lab.import("short", &lab.text("short")).0, "short", Kind::Invalid, "cut short");
    }
    lab.sh("cp disk.raw short && truncate -s 20M short");
    assert_refused(lab.import("short", &lab.text("short")).0, "short", Kind::Invalid, "outside");
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_refuses_large_sectors_by_name_whatever_they_come_in() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    lab.sh("truncate -s 48M large && l=$(losetup -f --show --sector-size 4096 large) && \
            echo 'label: gpt\n,' | sfdisk -q $l; losetup -d $l; gzip -1 -k large; \
            qemu-img convert -f raw -O qcow2 large large.qcow2");
    let why = "GPT with 4096-byte sectors";
    for file in ["large", "large.gz", "large.qcow2"] {
        assert_refused(lab.import("large", &lab.text(file)).0, "large", Kind::Invalid, why);
    }
    let device = lab.sh("losetup -f --show --sector-size 4096 large").trim().to_owned();
    assert_refused(lab.import("large", &device).0, "large", Kind::Invalid, "sectors of 4096 bytes");
    lab.sh(&format!("losetup -d {device}"));
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_takes_an_mbr_and_says_so_and_does_not_publish_it() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    lab.sh("truncate -s 48M old && echo 'label: dos\n2048,' | sfdisk -q old && gzip -1 -k old");
    for file in ["old", "old.gz"] {
        let import = sheath::image::Import { publish: false, ..lab.order("old", &lab.text(file)) };
        lab.run(&import).0.map_err(|e| e.chain()).unwrap();
        let found = volume("old").unwrap();
        assert!(matches!(found.role, Role::Image { mbr: true, published: false, .. }), "{found:?}");
        pool().remove_image(&"old".parse().unwrap()).unwrap();
    }
    assert_refused(lab.import("old", &lab.text("old")).0, "old", Kind::Invalid, "sheath image seal");
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_compares_the_checksum_before_anything_is_written() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    lab.sh("sha256sum disk.raw > SHA256SUMS && sha512sum disk.raw disk.qcow2 > SHA512SUMS");
    let source = lab.text("disk.raw");
    let right = lab.sh("cut -c-64 SHA256SUMS").trim().to_owned();
    let list = |name: &str| Check::InList(lab.text(name).parse().unwrap());
    let is = |sum: &str| Check::Is(sum.parse().unwrap());
    for checks in [vec![is(&right)], vec![list("SHA256SUMS")], vec![list("SHA512SUMS"), is(&right)]] {
        lab.checked("sums", &source, checks).map_err(|e| e.chain()).unwrap();
        assert_imported("sums");
    }
    let wrong = "0".repeat(64);
    let refused = lab.checked("sums", &source, vec![is(&wrong)]);
    assert_refused(refused, "sums", Kind::Invalid, &format!("is {right}, and not {wrong}"));
    let unlisted = lab.checked("sums", &lab.text("disk.qcow2"), vec![list("SHA256SUMS")]);
    assert_refused(unlisted, "sums", Kind::Missing, "no checksum for 'disk.qcow2'");
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_refuses_a_name_that_is_taken_and_leaves_that_image_alone() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    let name = image_in(pool(), "taken", Bytes::mib(16), 1);
    let before = volume("taken").unwrap();
    let error = lab.import("taken", &lab.text("disk.raw")).0.unwrap_err();
    assert_eq!(error.kind(), Kind::Exists, "{}", error.chain());
    assert_eq!(volume("taken").unwrap(), before);
    pool().remove_image(&name).unwrap();
}

const VG: &str = "sheathsmall";

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_refuses_what_the_pool_has_no_room_for_before_and_half_way() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    let group = lab.disk("group", 400 << 20);
    let thin = ["--type", "thin-pool", "-n", "pool", "-L", "200m", "--poolmetadatasize", "4m", "-c", "64k"];
    run("vgcreate", &[VG, &group.0]).unwrap();
    run("lvcreate", &[&thin[..], &["-y", "-Zy", VG]].concat()).unwrap();
    let small = sheath::host::lvm::Lvm::new(VG.parse().unwrap(), "pool".parse().unwrap());
    // 240 MiB of data behind the table: as a file it shows; packed it shows only when it is unpacked.
    lab.sh("cp disk.raw big && truncate -s 300M big && \
            head -c 240M /dev/zero | tr '\\0' 'x' | dd of=big bs=1M seek=20 conv=notrunc status=none");
    for (file, full_at) in [("big", "before"), ("big.gz", "half-way")] {
        lab.sh("[ -e big.gz ] || gzip -1 -k big");
        let import = lab.order("big", &lab.text(file));
        let (result, heard) = lab.run_in(&small, &import);
        let error = result.expect_err(full_at);
        assert_eq!(error.kind(), Kind::Full, "{full_at}: {}", error.chain());
        assert!(error.chain().contains("lvextend"), "{}", error.chain());
        assert_eq!(heard.is_empty(), full_at == "before", "{heard:?}");
        let all = small.volumes().unwrap();
        assert!(all.volumes.is_empty() && all.pool.data_percent < 1.0, "{all:?}");
    }
    run("vgremove", &["-f", "-y", VG]).unwrap();
}
