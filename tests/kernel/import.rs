//! Imports under a real systemd: each format and packing, and the sandboxes let through what is needed and nothing else.
//!
//! These need systemd as process 1 and our `/usr/bin/sheath`; without them they are skipped with a sentence. The other
//! files of the name have the sources beside files, what is refused, and what is cut off.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs::{self, File, Permissions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use sheath::{
    error::{Kind, Result},
    host::{lvm::Lvm, ssh::Keys},
    image::{Cancel, Check, Import, STALL},
    model::{Bytes, ImageId, ImageName, Imported, Role, Volume},
    status::ImportProgress,
};

use crate::{
    guest::wait_for,
    lvm::{pool, sh},
};

/// Returns the right to import, one test at a time, or `None` where imports cannot run.
pub(crate) fn ready() -> Option<MutexGuard<'static, ()>> {
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

pub(crate) struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    /// Returns a folder with `disk.raw` and `disk.qcow2` of the same content.
    pub(crate) fn new() -> Self {
        // Not in memory: some hundred MiB at a time.
        let folder = tempfile::tempdir_in("/var/lib").unwrap();
        raw_image(&folder.path().join("disk.raw"));
        let lab = Self { folder };
        lab.sh("qemu-img convert -O qcow2 disk.raw disk.qcow2");
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Runs a script in the folder.
    pub(crate) fn sh(&self, script: &str) -> String {
        sh(&format!("cd {} && {script}", self.folder.path().display()))
    }

    /// Makes a file of this size in the folder a block device; it is gone with what is returned.
    pub(crate) fn disk(&self, name: &str, bytes: u64) -> Loop {
        File::create(self.path(name)).unwrap().set_len(bytes).unwrap();
        Loop(self.sh(&format!("losetup --find --show {name}")).trim().to_owned())
    }

    /// Returns an import of this source, to be changed and run.
    pub(crate) fn order(&self, name: &str, source: &str) -> Import {
        Import {
            image: name.parse().unwrap(),
            source: source.parse().unwrap(),
            checks: vec![],
            publish: true,
            folder: self.folder.path().to_owned(),
            watermark: 90,
            stall: STALL,
            keys: Keys::default(),
        }
    }

    pub(crate) fn import(&self, name: &str, source: &str) -> (Result<Imported>, Vec<ImportProgress>) {
        self.run(&self.order(name, source))
    }

    pub(crate) fn checked(&self, name: &str, source: &str, checks: Vec<Check>) -> Result<()> {
        self.run(&Import { checks, ..self.order(name, source) }).0.map(drop)
    }

    pub(crate) fn run(&self, import: &Import) -> (Result<Imported>, Vec<ImportProgress>) {
        self.run_in(pool(), import)
    }

    pub(crate) fn run_in(&self, pool: &Lvm, import: &Import) -> (Result<Imported>, Vec<ImportProgress>) {
        let mut heard = vec![];
        let result = import.run(pool, &Cancel::default(), &mut |progress| heard.push(progress));
        self.assert_clean(&import.image.name);
        (result.map(|(whole, _)| whole.found), heard)
    }

    /// Makes sure that nothing is left of an import, but for its volume.
    pub(crate) fn assert_clean(&self, name: &ImageName) {
        assert!(!self.path(&format!("import-{name}")).exists(), "a folder is left behind");
        let units = sh(&format!("systemctl list-units --all --plain --no-legend 'sheath-import-{name}-*'"));
        assert_eq!(units.trim(), "", "a unit is left behind");
    }
}

/// A loop device.
pub(crate) struct Loop(pub(crate) String);

impl Drop for Loop {
    fn drop(&mut self) {
        sh(&format!("losetup --detach {}", self.0));
    }
}

pub(crate) fn volume(name: &str) -> Option<Volume> {
    let name: ImageId = name.parse().unwrap();
    pool().volumes().unwrap().volumes.get(&name.lv_name()).cloned()
}

/// Makes `large` of `disk.raw`: large enough to be in the middle of it.
pub(crate) fn large(lab: &Lab) {
    lab.sh("cp disk.raw large && truncate -s 400M large && \
            head -c 350M /dev/zero | tr '\\0' 'x' | dd of=large bs=1M seek=46 conv=notrunc status=none");
}

/// Returns the process that copies, once it has the volume.
pub(crate) fn copier() -> Option<String> {
    let pid = sh("pgrep --full --newest 'sheath internal-cop[y]' || true").trim().to_owned();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok().filter(|_| !pid.is_empty())?;
    let files = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    files.into_iter().any(|file| file.to_string_lossy().starts_with("/dev/dm-")).then_some(pid)
}

/// Asserts that the image is what the lab's disk is, and that it takes little of the pool; then removes it.
#[track_caller]
pub(crate) fn assert_imported(name: &str) {
    let found = volume(name).unwrap();
    assert!(matches!(found.role, Role::Image { published: true, .. }));
    assert!(!found.active && found.size > Bytes::mib(48) && found.size < Bytes::mib(64), "{}", found.size);
    sh(&format!("lvchange -ay -K sheathtest/{}", found.lv));
    let (mut disk, mut content) = (File::open(&found.device).unwrap(), vec![0; 2 << 20]);
    disk.seek(SeekFrom::Start(8 << 20)).unwrap();
    disk.read_exact(&mut content).unwrap();
    assert!(content[..1 << 20].iter().all(|b| *b == 0x5a) && content[1 << 20..].iter().all(|b| *b == 0));
    drop(disk);
    // A MiB of content, the table and its backup, in chunks of 64 KiB: zeros were not written.
    let used = f64::from(volume(name).unwrap().used_percent.unwrap()) / 100.0 * found.size.0 as f64;
    assert!(used < 1.4e6, "{used} bytes of the pool");
    pool().remove_image(&name.parse().unwrap()).unwrap();
}

#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(result: Result<T>, name: &str, kind: Kind, why: &str) {
    let error = result.expect_err("it is refused");
    assert_eq!(error.kind(), kind, "{}", error.chain());
    assert!(error.chain().contains(why), "{}", error.chain());
    assert!(volume(name).is_none(), "a volume is left behind");
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_takes_raw_and_qcow2_files_readable_or_not() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    for (name, file, mode) in [("a-raw", "disk.raw", 0o644), ("a-qcow2", "disk.qcow2", 0o600)] {
        fs::set_permissions(lab.path(file), Permissions::from_mode(mode)).unwrap();
        let (result, heard) = lab.import(name, &lab.text(file));
        let Imported { format, size, sha256, .. } = result.map_err(|e| e.chain()).unwrap();
        assert_eq!((format.as_deref(), sha256), (name.strip_prefix("a-"), None));
        assert_eq!(size.map(|size| size.0), Some(lab.path("disk.raw").metadata().unwrap().len()));
        let last = heard.last();
        assert!(matches!(last, Some(ImportProgress::Writing { permyriad: 10_000, .. })), "{heard:?}");
        assert_imported(name);
    }
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_takes_the_disks_of_other_hypervisors() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    for (name, options) in [
        ("a-vmdk", "-O vmdk"),
        ("a-streamed", "-O vmdk -o subformat=streamOptimized"),
        ("a-vhdx", "-O vhdx"),
        ("a-vdi", "-O vdi"),
        ("a-vhd", "-O vpc -o force_size=on"),
        ("a-fixed-vhd", "-O vpc -o force_size=on,subformat=fixed"),
    ] {
        lab.sh(&format!("rm -f other && qemu-img convert {options} disk.raw other"));
        lab.import(name, &lab.text("other")).0.map_err(|e| format!("{name}: {}", e.chain())).unwrap();
        assert_imported(name);
    }
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_unpacks_a_raw_disk_and_cuts_its_volume_to_size() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    for (packing, tool) in [("gz", "gzip"), ("xz", "xz"), ("zst", "zstd -q"), ("bz2", "bzip2")] {
        let program = Path::new("/usr/bin").join(tool.split(' ').next().unwrap());
        if !program.exists() {
            println!("skipped: {packing} ({} is not there)", program.display());
            continue;
        }
        lab.sh(&format!("{tool} -c disk.raw > packed"));
        let name = format!("a-{packing}");
        let (result, heard) = lab.import(&name, &lab.text("packed"));
        result.map_err(|e| format!("{packing}: {}", e.chain())).unwrap();
        let last = heard.last();
        assert!(matches!(last, Some(ImportProgress::Writing { permyriad: 10_000, .. })), "{heard:?}");
        assert_imported(&name);
        lab.sh("truncate -s -100 packed");
        assert_refused(
            lab.import(&name, &lab.text("packed")).0,
            &name,
            Kind::Invalid,
            "damaged or cut short",
        );
    }
    // What comes out of them is looked at by the same piece of ours, whatever has unpacked it.
    lab.sh("gzip -c disk.qcow2 > packed");
    let packed = lab.import("a-qcow2", &lab.text("packed")).0;
    assert_refused(packed, "a-qcow2", Kind::Invalid, "a qcow2 disk is packed");
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
    let (spy, source) = (lab.path("spy"), lab.text("disk.qcow2"));
    File::create(&spy).unwrap().write_all(SPY.as_bytes()).unwrap();
    fs::set_permissions(&spy, Permissions::from_mode(0o755)).unwrap();
    // Renamed and copied, not mounted over: the folder for temporary files may be one that nothing is started from.
    sh(&format!(
        "mv /usr/bin/sheath /usr/bin/sheath.kept && install -m 755 {} /usr/bin/sheath",
        spy.display()
    ));
    let (result, _) = lab.import("spy", &source);
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

/// Returns a line of what the kernel tells of a process.
fn told(pid: &str, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_copies_a_raw_disk_by_a_process_that_has_two_open_files_and_no_rights() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    large(&lab);
    let order = lab.order("a-confined", &lab.text("large"));
    std::thread::scope(|scope| {
        let import = scope.spawn(|| lab.run(&order).0);
        let pid = wait_for("the copying", copier);
        sh(&format!("kill -STOP {pid}"));
        for (key, value) in
            [("CapEff", "0000000000000000"), ("CapPrm", "0000000000000000"), ("NoNewPrivs", "1")]
        {
            assert_eq!(told(&pid, key), value, "{key}");
        }
        // SECCOMP_MODE_FILTER
        assert_eq!(told(&pid, "Seccomp"), "2");
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let mut open: Vec<_> = open.map(|fd| fs::read_link(fd.unwrap().path()).unwrap()).collect();
        open.retain(|file| !["socket:", "pipe:"].iter().any(|kind| file.to_str().unwrap().starts_with(kind)));
        open.sort();
        let (volume, source) = (&open[0], &open[1]);
        assert!(volume.starts_with("/dev") && source == &lab.path("large") && open.len() == 2, "{open:?}");
        sh(&format!("kill -CONT {pid}"));
        import.join().unwrap().map_err(|e| e.chain()).unwrap();
    });
    pool().remove_image(&order.image).unwrap();
}
