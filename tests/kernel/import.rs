//! Imports under a real systemd: the sandboxes let through what is needed, and nothing else.
//!
//! These need systemd as process 1 and our `/usr/bin/sheath`; without them they are skipped with a sentence.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs::{self, File, Permissions},
    io::{Read, Seek, SeekFrom, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use sheath::{
    error::{Kind, Result},
    image::{Cancel, Import},
    model::{Bytes, ImageId, Role, Volume},
    status::ImportProgress,
};

use crate::lvm::{pool, sh};

/// Returns the right to import, one test at a time, or `None` where imports cannot run.
fn ready() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    let ready = Path::new("/run/systemd/system").exists() && Path::new("/usr/bin/sheath").exists();
    if !ready {
        let _ = writeln!(std::io::stdout(), "skipped: needs systemd as process 1 and /usr/bin/sheath");
    }
    ready.then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Makes a raw disk with a GPT and some content.
fn raw_image(path: &Path) {
    let mut disk = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    disk.set_len(48 << 20).unwrap();
    let mut table = gptman::GPT::new_from(&mut disk, 512, [7; 16]).unwrap();
    table[1] = gptman::GPTPartitionEntry {
        partition_type_guid: [0x11; 16],
        unique_partition_guid: [1; 16],
        starting_lba: 2048,
        ending_lba: table.header.last_usable_lba,
        ..gptman::GPTPartitionEntry::empty()
    };
    table.write_into(&mut disk).unwrap();
    disk.seek(SeekFrom::Start(8 << 20)).unwrap();
    disk.write_all(&[0x5a; 1 << 20]).unwrap();
}

struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    /// Returns a folder with `disk.raw` and `disk.qcow2` of the same content.
    fn new() -> Self {
        let folder = tempfile::tempdir_in("/run").unwrap();
        raw_image(&folder.path().join("disk.raw"));
        let path = folder.path().display();
        sh(&format!("cd {path} && qemu-img convert -O qcow2 disk.raw disk.qcow2"));
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn import(&self, name: &str, source: &str) -> (Result<()>, Vec<ImportProgress>) {
        let import = Import {
            image: name.parse().unwrap(),
            source: source.parse().unwrap(),
            publish: true,
            folder: self.folder.path().to_owned(),
            watermark: 90,
        };
        let mut heard = vec![];
        let result = import.run(pool(), &Cancel::default(), &mut |progress| heard.push(progress));
        assert!(!self.path(&format!("import-{name}")).exists(), "nothing left behind");
        (result, heard)
    }
}

fn volume(name: &str) -> Option<Volume> {
    let name: ImageId = name.parse().unwrap();
    pool().volumes().unwrap().volumes.get(&name.lv_name()).cloned()
}

fn assert_imported(name: &str) {
    let found = volume(name).unwrap();
    assert!(matches!(found.role, Role::Image { published: true, .. }));
    assert!(!found.active && found.size > Bytes::mib(48));
    sh(&format!("lvchange -ay -K sheathtest/{}", found.lv));
    let (mut disk, mut content) = (File::open(&found.device).unwrap(), vec![0; 2 << 20]);
    disk.seek(SeekFrom::Start(8 << 20)).unwrap();
    disk.read_exact(&mut content).unwrap();
    assert!(content[..1 << 20].iter().all(|b| *b == 0x5a) && content[1 << 20..].iter().all(|b| *b == 0));
    drop(disk);
    pool().remove_image(&name.parse().unwrap()).unwrap();
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_takes_raw_and_qcow2_files_readable_or_not() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    for (name, file, mode) in [("a-raw", "disk.raw", 0o644), ("a-qcow2", "disk.qcow2", 0o600)] {
        fs::set_permissions(lab.path(file), Permissions::from_mode(mode)).unwrap();
        let (result, heard) = lab.import(name, lab.path(file).to_str().unwrap());
        result.map_err(|e| e.chain()).unwrap();
        assert_eq!(heard.last(), Some(&ImportProgress::Writing { permyriad: 10_000 }), "{heard:?}");
        assert_imported(name);
    }
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_refuses_an_image_that_points_outside_and_leaves_nothing() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    let evil = lab.path("evil.qcow2");
    sh(&format!("qemu-img create -f qcow2 -F raw -b /etc/shadow {}", evil.display()));
    let (result, _) = lab.import("evil", evil.to_str().unwrap());
    let error = result.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{}", error.chain());
    assert!(error.chain().contains("backing file"), "{}", error.chain());
    assert!(volume("evil").is_none());
    let (result, _) = lab.import("nothing", "/nowhere/at all.img");
    assert_eq!(result.unwrap_err().kind(), Kind::Missing);
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_fetches_from_a_url_and_a_short_answer_is_no_image() {
    let Some(_turn) = ready() else { return };
    sh("ip link set lo up");
    let lab = Lab::new();
    let content = fs::read(lab.path("disk.qcow2")).unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let (mut stream, mut request) = (stream.unwrap(), [0; 4096]);
            let n = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..n]).into_owned();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
            stream.write_all(head.as_bytes()).unwrap();
            if request.starts_with("GET") {
                let end = if request.contains("short") { content.len() / 2 } else { content.len() };
                let _ = stream.write_all(&content[..end]);
            }
        }
    });
    let (result, heard) = lab.import("a-url", &format!("http://127.0.0.1:{port}/disk.qcow2"));
    result.map_err(|e| e.chain()).unwrap();
    assert!(matches!(heard[0], ImportProgress::Fetching { total: Some(_), .. }), "{heard:?}");
    assert_imported("a-url");
    let (result, _) = lab.import("a-short", &format!("http://127.0.0.1:{port}/short"));
    assert_eq!(result.unwrap_err().kind(), Kind::Failed);
    assert!(volume("a-short").is_none());
}

/// What a program in the place of ours sees and may do.
const SPY: &str = r#"#!/bin/sh
exec 1>&2
echo "uid=$(id -u)"
echo "root=$(echo /*)"
echo "etc=$(echo /etc/*)"
echo "run=$(echo /run/*)"
echo "dev=$(ls /dev | tr '\n' ' ')"
echo "links=$(sed -n 's/^ *\([a-z0-9]*\):.*/\1/p' /proc/self/net/dev)"
grep -E 'CapEff|NoNewPrivs' /proc/self/status
cat /etc/shadow /proc/1/environ
touch /usr/x /source
exit 3
"#;

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_shows_the_sandbox_one_file_and_no_network() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    let (spy, source) = (lab.path("spy"), lab.path("disk.raw"));
    File::create(&spy).unwrap().write_all(SPY.as_bytes()).unwrap();
    fs::set_permissions(&spy, Permissions::from_mode(0o755)).unwrap();
    // Renamed and copied, not mounted over: the folder for temporary files may be one that nothing is started from.
    sh(&format!(
        "mv /usr/bin/sheath /usr/bin/sheath.kept && install -m 755 {} /usr/bin/sheath",
        spy.display()
    ));
    let (result, _) = lab.import("spy", source.to_str().unwrap());
    sh("mv /usr/bin/sheath.kept /usr/bin/sheath");
    let seen = result.unwrap_err().chain();
    println!("{seen}");
    for word in ["uid=0", "/home", "/boot", "root:*", "vda", "dm-"] {
        assert!(!seen.contains(word), "{word}: {seen}");
    }
    // systemd's own: newer ones add the host's os-release.
    let run = seen.split("run=").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
    assert!(run.split(' ').all(|folder| ["/run/systemd", "/run/host"].contains(&folder)), "{run}");
    for words in [
        "root=/bin /dev /etc /lib /lib64 /proc /root /run /source /sys /tmp /usr /var;",
        "etc=/etc/ld.so.cache;",
        // Its own network namespace. What /sys shows is the host's with systemd 252, and no way to anything.
        "links=lo;",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "'/usr/x': Read-only file system",
    ] {
        assert!(seen.contains(words), "{words}: {seen}");
    }
}
