//! Files and disks of another machine over SSH: a real sshd, which stands in for the donor on this machine's own address.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use sheath::{
    error::Kind,
    host::ssh::Keys,
    image::{Cancel, Import},
    model::Imported,
    status::ImportProgress,
};

use crate::{
    guest::{run, wait_for},
    import::{Lab, assert_imported, assert_refused, ready, volume},
    lvm::{pool, sh},
};

pub(crate) const PORT: u16 = 2222;

/// An sshd with a host key of its own that lets one key in, and an appliance that knows it.
pub(crate) struct Donor {
    pub(crate) lab: Lab,
    pub(crate) keys: Keys,
}

impl Donor {
    pub(crate) fn new() -> Self {
        sh("ip link set lo up");
        let lab = Lab::new();
        let keys = Keys::of_folder(lab.path("ssh"));
        let public = keys.create().unwrap();
        fs::write(lab.path("authorized"), format!("{public}\n")).unwrap();
        let folder = lab.text("");
        let config = format!(
            "Port {PORT}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n\
             PermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\nPidFile {folder}/sshd.pid\n\
             Banner {folder}/banner\n"
        );
        fs::write(lab.path("config"), config).unwrap();
        // What may come before, on either way.
        fs::write(lab.path("banner"), "Authorised users only\n").unwrap();
        fs::write("/root/.bashrc", "echo Welcome to the donor\n").unwrap();
        lab.sh("ssh-keygen -q -t ed25519 -N '' -f host && mkdir -p /run/sshd && chmod 755 . && /usr/sbin/sshd -f $PWD/config");
        wait_for("sshd", || TcpStream::connect(("127.0.0.1", PORT)).ok());
        let donor = Self { lab, keys };
        donor.accept(PORT);
        donor
    }

    /// Accepts the host key that is found behind a port: what an unknown one's error says.
    fn accept(&self, port: u16) {
        let known = self.keys.known_hosts();
        sh(&format!("ssh-keyscan -p {port} -t ed25519 127.0.0.1 >> {} 2>/dev/null", known.display()));
    }

    /// Makes a small raw disk, because the lines below are slow on an emulated processor; returns its path.
    fn small(&self) -> String {
        self.lab.sh(
            "truncate -s 16M small.raw && echo 'start=2048, type=linux' | sfdisk -q -X gpt small.raw && \
             head -c 14M /dev/urandom | dd of=small.raw bs=1M seek=1 conv=notrunc status=none",
        );
        self.lab.text("small.raw")
    }

    /// Asserts that the image is what the small disk is, and removes it.
    #[track_caller]
    fn assert_is_small(&self, name: &str) {
        let found = volume(name).unwrap();
        sh(&format!("lvchange -ay -K sheathtest/{}", found.lv));
        assert_eq!(self.lab.sh(&format!("cmp --bytes=15728640 small.raw {}", found.device.display())), "");
        pool().remove_image(&name.parse().unwrap()).unwrap();
    }

    fn url(&self, port: u16, path: &str) -> String {
        format!("ssh://127.0.0.1:{port}{path}")
    }

    fn order(&self, name: &str, port: u16, path: &str) -> Import {
        Import { keys: self.keys.clone(), ..self.lab.order(name, &self.url(port, path)) }
    }

    #[track_caller]
    fn import(&self, name: &str, port: u16, path: &str) -> (Imported, Vec<ImportProgress>) {
        let (result, heard) = self.lab.run(&self.order(name, port, path));
        (result.map_err(|e| e.chain()).unwrap(), heard)
    }
}

impl Drop for Donor {
    fn drop(&mut self) {
        self.lab.sh("kill $(cat sshd.pid)");
        let _ = fs::remove_file("/root/.bashrc");
    }
}

/// What a line does after so many bytes from the donor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Break,
    Stall,
}

/// A line to the donor that does not hold. Returns its port, and how often it was used.
fn line(most: usize, then: Then) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, used) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&used);
    thread::spawn(move || {
        for near in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            let near = near.unwrap();
            let far = TcpStream::connect(("127.0.0.1", PORT)).unwrap();
            let (near2, far2) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            thread::spawn(move || pass(near2, far2, usize::MAX, Then::Break));
            thread::spawn(move || pass(far, near, most, then));
        }
    });
    (port, used)
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut left: usize, then: Then) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
        left = left.saturating_sub(n);
        if left == 0 && then == Then::Stall {
            thread::sleep(Duration::from_secs(60));
        }
        if left == 0 {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_ssh_takes_files_and_disks_of_another_machine() {
    let Some(_turn) = ready() else { return };
    let donor = Donor::new();
    let lab = &donor.lab;
    // A name that every shell on the way would take apart.
    let odd = "/it's $HOME `x` \"y\" %41.raw";
    fs::rename(lab.path("disk.raw"), lab.text("") + odd).unwrap();
    let folder = lab.text("").trim_end_matches('/').to_owned();
    let (found, heard) = donor.import("a-raw", PORT, &format!("{folder}{odd}"));
    assert_eq!((found.format.as_deref(), found.caution), (Some("raw"), None));
    assert!(found.source.starts_with("ssh://root@127.0.0.1:2222/"), "{}", found.source);
    assert!(
        !heard.iter().any(|p| matches!(p, ImportProgress::Fetching { .. })),
        "it goes straight to its volume"
    );
    assert!(matches!(heard.last(), Some(ImportProgress::Writing { permyriad: 10_000, .. })), "{heard:?}");
    assert_imported("a-raw");

    let (found, heard) = donor.import("a-qcow2", PORT, &lab.text("disk.qcow2"));
    assert_eq!(found.format.as_deref(), Some("qcow2"));
    assert!(matches!(heard[0], ImportProgress::Fetching { total: Some(_), .. }), "{heard:?}");
    assert_imported("a-qcow2");

    let disk = lab.disk("donor", 48 << 20);
    lab.sh(&format!("set -- it*.raw && dd if=\"$1\" of={} bs=1M status=none && sync", disk.0));
    let (found, _) = donor.import("a-disk", PORT, &disk.0);
    assert_eq!((found.format.as_deref(), found.caution), (Some("raw"), None));
    assert_imported("a-disk");

    let node = "dmsetup create on-donor --table";
    sh(&format!(
        "{node} '0 8192 linear {} 2048' && mkfs.ext4 -q /dev/mapper/on-donor && mkdir -p /run/on-donor",
        disk.0
    ));
    run("mount", &["/dev/mapper/on-donor", "/run/on-donor"]).unwrap();
    let used = lab.run(&donor.order("a-used", PORT, &disk.0)).0;
    sh("umount /run/on-donor; dmsetup remove on-donor");
    let caution = used.map_err(|e| e.chain()).unwrap().caution.unwrap();
    assert!(caution.contains("was mounted"), "{caution}");
    pool().remove_image(&"a-used".parse().unwrap()).unwrap();
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_ssh_accepts_nobody_and_nothing_by_itself() {
    let Some(_turn) = ready() else { return };
    let donor = Donor::new();
    let path = donor.lab.text("disk.raw");
    let refused = |kind, why: &str| {
        let result = donor.lab.run(&donor.order("a-no", PORT, &path)).0;
        let text = result.as_ref().map_err(sheath::error::Error::chain).unwrap_err().clone();
        assert_refused(result, "a-no", kind, why);
        text
    };
    let known = fs::read(donor.keys.known_hosts()).unwrap();
    fs::remove_file(donor.keys.known_hosts()).unwrap();
    let text = refused(
        Kind::Denied,
        "accept it: ssh-keyscan -p 2222 -t ed25519 127.0.0.1 >> /etc/sheath/ssh/known_hosts",
    );
    let fingerprint = donor.lab.sh("ssh-keygen -lf host.pub").split(' ').nth(1).unwrap().to_owned();
    assert!(text.contains(&format!("(ed25519 {fingerprint})")), "{text}");
    // Somebody else's key under the donor's name.
    let other = fs::read_to_string(donor.keys.private().with_extension("pub")).unwrap();
    fs::write(donor.keys.known_hosts(), format!("[127.0.0.1]:{PORT} {other}")).unwrap();
    refused(Kind::Denied, "ssh-keygen -R '[127.0.0.1]:2222' -f /etc/sheath/ssh/known_hosts");
    fs::write(donor.keys.known_hosts(), known).unwrap();

    fs::write(donor.lab.path("authorized"), "").unwrap();
    let text = refused(Kind::Denied, "add this line to its ~/.ssh/authorized_keys there: ssh-ed25519 AAAA");
    assert!(text.contains(" sheath@appliance"), "{text}");
    fs::write(donor.lab.path("authorized"), other).unwrap();

    for (path, kind, why) in [
        (donor.lab.text("none"), Kind::Missing, "there is no '"),
        (
            donor.lab.path("").parent().unwrap().to_str().unwrap().to_owned(),
            Kind::Invalid,
            "neither a file nor",
        ),
        ("/dev/null".into(), Kind::Invalid, "neither a file nor a block device"),
    ] {
        assert_refused(donor.lab.run(&donor.order("a-no", PORT, &path)).0, "a-no", kind, why);
    }
    let none = Import { keys: Keys::of_folder("/nowhere"), ..donor.order("a-no", PORT, &path) };
    assert_refused(donor.lab.run(&none).0, "a-no", Kind::Missing, "'sheath image key' makes one");
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_ssh_goes_on_where_a_line_broke_and_gives_a_silent_one_up() {
    let Some(_turn) = ready() else { return };
    let donor = Donor::new();
    let path = donor.small();
    let (port, used) = line(8 << 20, Then::Break);
    donor.accept(port);
    used.store(0, Ordering::SeqCst);
    donor.import("a-line", port, &path);
    donor.assert_is_small("a-line");
    // What ssh had not handed on when the line broke comes once more.
    let lines = || used.load(Ordering::SeqCst);
    assert!((3..=6).contains(&lines()), "{} lines", lines());
    // The other way: into a file of ours, because it is to be compared.
    used.store(0, Ordering::SeqCst);
    let sum = donor.lab.sh("sha256sum small.raw").split(' ').next().unwrap().to_owned();
    let checks = vec![sheath::image::Check::Is(sum.parse().unwrap())];
    let order = Import { checks, ..donor.order("a-line", port, &path) };
    donor.lab.run(&order).0.map_err(|e| e.chain()).unwrap();
    donor.assert_is_small("a-line");
    assert!((3..=6).contains(&lines()), "{} lines", lines());

    let (port, _) = line(8 << 20, Then::Stall);
    donor.accept(port);
    let order = Import { stall: Duration::from_secs(3), ..donor.order("a-stall", port, &path) };
    assert_refused(
        donor.lab.run(&order).0,
        "a-stall",
        Kind::Timeout,
        "the source has stalled: silent for 3 s",
    );
    assert!(Path::new(&path).exists() && volume("a-stall").is_none());
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_ssh_that_is_cancelled_or_whose_file_changes_leaves_nothing() {
    let Some(_turn) = ready() else { return };
    let donor = Donor::new();
    let path = donor.small();
    let (port, _) = line(8 << 20, Then::Stall);
    donor.accept(port);
    let (order, cancel) = (donor.order("a-cancel", port, &path), Cancel::default());
    let result = order.run(pool(), &cancel, &mut |progress| {
        if matches!(progress, ImportProgress::Writing { permyriad: 1.., .. }) {
            cancel.cancel();
        }
    });
    donor.lab.assert_clean(&order.image.name);
    assert_refused(result, "a-cancel", Kind::Denied, "cancelled");

    let (port, _) = line(8 << 20, Then::Break);
    donor.accept(port);
    let (order, mut changed) = (donor.order("a-change", port, &path), false);
    let result = order.run(pool(), &Cancel::default(), &mut |progress| {
        if !changed && matches!(progress, ImportProgress::Writing { permyriad: 1.., .. }) {
            changed = true;
            donor.lab.sh("touch -d 2001-01-01 small.raw");
        }
    });
    donor.lab.assert_clean(&order.image.name);
    assert!(changed);
    assert_refused(result, "a-change", Kind::Invalid, "it has changed while it was read");
}
