//! Sources beside files: URLs that break off and stall, a donor's disk that is in use or goes, an NBD export.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use sheath::{
    error::Kind,
    image::{Cancel, Check, Import},
    status::ImportProgress,
};

use crate::{
    guest::{run, wait_for},
    import::{Lab, assert_imported, assert_refused, ready, volume},
    lvm::{pool, sh},
};

/// A server that can do ranges, breaks off, and stalls.
pub(crate) struct Server {
    port: u16,
    /// What was asked for: a line per request, with its range.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves this content under any name. Names with these words in them: `breaks` ends each answer after a third of the
    /// file, `stalls` says nothing more after it, `silent` never says more than a third, `short` no more than half.
    pub(crate) fn of(content: Vec<u8>) -> Self {
        sh("ip link set lo up");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, asked) = (listener.local_addr().unwrap().port(), Arc::default());
        let (log, content) = (Arc::clone(&asked), Arc::new(content));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (content, log) = (Arc::clone(&content), Arc::clone(&log));
                thread::spawn(move || answer(&mut stream.unwrap(), &content, &log));
            }
        });
        Self { port, asked }
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://me:secret@127.0.0.1:{}/{name}?token=secret", self.port)
    }

    /// Returns the ranges of the GETs, `-` for none.
    fn ranges(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let gets = asked.iter().filter_map(|line| line.strip_prefix("GET "));
        gets.map(str::to_owned).collect()
    }
}

fn answer(stream: &mut TcpStream, content: &[u8], log: &Mutex<Vec<String>>) {
    let mut request = vec![];
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).unwrap();
    let verb = request.split(' ').next().unwrap();
    let header = |name: &str| request.lines().find_map(|line| line.strip_prefix(name));
    let range = header("Range: bytes=").filter(|_| header("If-Range: ") == Some("\"one\""));
    log.lock().unwrap().push(format!("{verb} {}", range.unwrap_or("-")));
    let from: usize = range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
    let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
    let (total, rest) = (content.len(), content.len() - from);
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {rest}\r\nContent-Range: bytes {from}-{}/{total}\r\nETag: \"one\"\r\n\
         Connection: close\r\n\r\n",
        total - 1
    );
    if verb != "GET" {
        return;
    }
    let word = |word: &str| request.lines().next().unwrap().contains(word);
    let third = total / 3 + 1;
    let end = match () {
        () if word("short") => total / 2,
        () if word("silent") => third,
        () if word("breaks") || word("stalls") => (from + third).min(total),
        () => total,
    };
    let _ = stream.write_all(&content[from.min(end)..end]);
    if (word("stalls") || word("silent")) && end < total {
        thread::sleep(Duration::from_secs(60));
    }
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_fetches_from_a_url_and_goes_on_where_a_transfer_broke_off() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    let server = Server::of(fs::read(lab.path("disk.qcow2")).unwrap());
    let (result, heard) = lab.import("a-url", &server.url("disk.qcow2"));
    drop(result.map_err(|e| e.chain()).unwrap());
    assert!(matches!(heard[0], ImportProgress::Fetching { total: Some(_), .. }), "{heard:?}");
    assert_imported("a-url");
    assert_eq!(server.ranges(), ["-"]);
    server.asked.lock().unwrap().clear();
    lab.import("a-url", &server.url("breaks.qcow2")).0.map_err(|e| e.chain()).unwrap();
    assert_imported("a-url");
    let ranges = server.ranges();
    assert!(
        ranges.len() == 3 && ranges[0] == "-" && ranges[1..].iter().all(|range| range != "-"),
        "{ranges:?}"
    );
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_gives_a_silent_source_up_and_tells_no_secret() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    let server = Server::of(fs::read(lab.path("disk.qcow2")).unwrap());
    sh("journalctl --rotate --vacuum-time=1s >/dev/null 2>&1");
    let short = lab.import("a-short", &server.url("short")).0;
    assert_refused(short, "a-short", Kind::Failed, "given up after 3 tries");
    server.asked.lock().unwrap().clear();
    let order = Import { stall: Duration::from_secs(2), ..lab.order("a-stall", &server.url("silent")) };
    let secret = Arc::new(Mutex::new(false));
    let (seen, mut heard) = (Arc::clone(&secret), 0);
    let result = order.run(pool(), &Cancel::default(), &mut |_| {
        heard += 1;
        *seen.lock().unwrap() |= sh("cat /proc/[0-9]*/cmdline").contains("secret");
    });
    lab.assert_clean(&order.image.name);
    // The first answer brings something, three bring nothing.
    let error = result.as_ref().unwrap_err().chain();
    assert!(!error.contains("secret"), "{error}");
    let stalled = server.ranges().len();
    assert_refused(result, "a-stall", Kind::Timeout, "the source has stalled: silent for 2 s");
    assert_eq!(stalled, 4);
    assert!(heard > 0 && !*secret.lock().unwrap(), "a command line has the password");
    assert!(!sh("journalctl -b --no-pager").contains("secret@"));
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_finds_the_checksum_in_a_list_from_a_url() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    let list = Server::of(lab.sh("sha256sum disk.qcow2").into_bytes());
    let server = Server::of(fs::read(lab.path("disk.qcow2")).unwrap());
    let check = || vec![Check::InList(list.url("SHA256SUMS").parse().unwrap())];
    lab.checked("a-list", &server.url("disk.qcow2"), check()).map_err(|e| e.chain()).unwrap();
    assert_imported("a-list");
    let other = Server::of(vec![7; 4096]);
    let refused = lab.checked("a-list", &other.url("disk.qcow2"), check());
    assert_refused(refused, "a-list", Kind::Invalid, "its sha256 checksum is");
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_takes_a_donors_disk_that_nobody_uses_and_holds_it_meanwhile() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    let disk = lab.disk("donor", 48 << 20);
    let source = disk.0.as_str();
    lab.sh(&format!("dd if=disk.raw of={source} bs=1M status=none && sync"));
    let mut claimed = vec![];
    let order = lab.order("a-donor", source);
    let result = order.run(pool(), &Cancel::default(), &mut |_| claimed.push(stack_on(source).is_err()));
    lab.assert_clean(&order.image.name);
    drop(result.map_err(|e| e.chain()).unwrap());
    assert!(!claimed.is_empty() && claimed.iter().all(|refused| *refused), "somebody else could take it");
    assert_imported("a-donor");
    stack_on(source).unwrap();
    let used = lab.import("a-donor", source).0;
    run("dmsetup", &["remove", "on-donor"]).unwrap();
    assert_refused(used, "a-donor", Kind::Busy, "(dm) stands on it");
    assert_refused(lab.import("x", "/dev/null").0, "x", Kind::Invalid, "not a block device");
}

/// Makes a device of device-mapper's on a disk: as LVM, RAID and encryption do.
fn stack_on(disk: &str) -> Result<String, String> {
    run("dmsetup", &["create", "on-donor", "--table", &format!("0 2048 linear {disk} 0")])
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_of_a_donors_disk_that_goes_half_way_leaves_nothing() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    let (disk, sectors) = (lab.disk("donor", 400 << 20), (400_u64 << 20) / 512);
    let device = disk.0.as_str();
    lab.sh(&format!(
        "dd if=disk.raw of={device} bs=1M status=none && \
         head -c 350M /dev/zero | tr '\\0' 'x' | dd of={device} bs=1M seek=46 conv=notrunc status=none"
    ));
    run("dmsetup", &["create", "donor", "--table", &format!("0 {sectors} linear {device} 0")]).unwrap();
    let mut gone = false;
    let order = lab.order("a-gone", "/dev/mapper/donor");
    let result = order.run(pool(), &Cancel::default(), &mut |progress| {
        if !gone && matches!(progress, ImportProgress::Writing { permyriad: 100.., .. }) {
            gone = true;
            let table = format!("0 {sectors} error");
            sh(&format!("dmsetup reload donor --table '{table}' && dmsetup resume donor"));
        }
    });
    lab.assert_clean(&order.image.name);
    run("dmsetup", &["remove", "donor"]).unwrap();
    assert!(gone, "it was over before the disk could go: {result:?}");
    assert_refused(result, "a-gone", Kind::Failed, "Input/output error");
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_takes_an_nbd_export_and_gives_a_silent_one_up() {
    let Some(_turn) = ready() else { return };
    sh("ip link set lo up");
    let lab = Lab::new();
    // What a donor's disk begins with is the donor's: it is not looked into.
    let serve = "qemu-nbd -f raw -r -x disk -b 127.0.0.1 --persistent --fork --pid-file=pid disk.raw";
    lab.sh(serve);
    let source = "nbd://127.0.0.1/disk";
    lab.import("a-nbd", source).0.map_err(|e| e.chain()).unwrap();
    assert_imported("a-nbd");
    let missing = lab.import("a-nbd", "nbd://127.0.0.1/other").0;
    assert_refused(missing, "a-nbd", Kind::Missing, "nbd://127.0.0.1:10809/other");
    let pid = fs::read_to_string(lab.path("pid")).unwrap();
    let order = Import { stall: Duration::from_secs(3), ..lab.order("a-nbd", source) };
    let mut stopped = false;
    let result = order.run(pool(), &Cancel::default(), &mut |_| {
        if !stopped {
            stopped = true;
            sh(&format!("kill -STOP {pid}"));
        }
    });
    sh(&format!("kill -CONT {pid}; kill {pid}"));
    assert_refused(result, "a-nbd", Kind::Timeout, "the source has stalled");
    lab.assert_clean(&order.image.name);
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_that_is_cancelled_ends_soon_and_leaves_nothing() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    let server = Server::of(fs::read(lab.path("disk.qcow2")).unwrap());
    let (order, cancel) = (lab.order("a-cancel", &server.url("stalls")), Cancel::default());
    let other = cancel.clone();
    let (asked, begin) = (Arc::clone(&server.asked), std::time::Instant::now());
    let canceller = thread::spawn(move || {
        wait_for("the fetch", || {
            asked.lock().unwrap().iter().any(|line| line.starts_with("GET")).then_some(())
        });
        other.cancel();
    });
    let result = order.run(pool(), &cancel, &mut |_| ());
    canceller.join().unwrap();
    lab.assert_clean(&order.image.name);
    assert_refused(result, "a-cancel", Kind::Denied, "cancelled");
    assert!(begin.elapsed() < Duration::from_secs(45), "{:?}", begin.elapsed());
    assert!(volume("a-cancel").is_none());
}
