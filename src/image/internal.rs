//! What reads images: hidden subcommands of `sheath`, started by the import and by nobody else.
//!
//! Most run inside the sandbox: the process has no privileges and sees one image and one device; only what comes over NBD has
//! the network. It screens the image itself again, because between the import's look and this one the file may have become
//! another. What copies a raw disk of this machine needs no other program, and no more than two open files: it confines
//! itself before it reads the first byte.

use std::{
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{
    checksum, copy, hand,
    header::{Format, Look, Packing, Screened, bootable_size, screen},
    iscsi::{Handed, Lun},
    nbd::Export,
    progress::{self, TELL},
    sandbox, ssh, unpack,
};
use crate::{
    error::{Context, Error, Kind, Result},
    host::{
        cmd::{Cmd, Tool},
        privileges,
    },
    model::Bytes,
};

/// The hidden subcommand that looks at an image: `internal-probe SOURCE`, and `internal-probe sum ALGORITHM SOURCE` for its
/// checksum, `internal-probe listed NAME LIST` for the one that a list has.
pub const PROBE: &str = "internal-probe";
/// The hidden subcommand that writes an image to a device: `internal-convert FORMAT SOURCE DEVICE`, the format being one of
/// a disk or of what is packed.
pub const CONVERT: &str = "internal-convert";
/// The hidden subcommand that looks at a source of this machine and, where it is a raw disk, copies it: `internal-copy`, with a
/// socket as its standard input that the open source comes by, and the open device.
pub const COPY: &str = "internal-copy";
/// The word for a checksum.
pub(super) const SUM: &str = "sum";
/// The word for what is on another machine; the order is on standard input.
pub(super) const REMOTE: &str = "remote";
/// The word for a list of checksums.
pub(super) const LISTED: &str = "listed";

/// Longest time for a look at all tables of an image, and for an export's answer.
const LOOK: Duration = Duration::from_secs(600);
/// qemu-img check: clusters that nothing refers to, which costs room and harms nobody.
const LEAKS: i32 = 3;

/// Runs the hidden subcommand whose name and arguments these are.
///
/// The probe writes one line to standard output. The conversion does not return when all is well and qemu-img does it:
/// the process becomes qemu-img.
///
/// # Errors
/// [`Kind::Invalid`] for other words and for refused images; else the failing system call.
pub fn run(args: &[OsString]) -> Result<()> {
    let words: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    match words[..] {
        [PROBE, SUM, algorithm, source] => sum(algorithm.parse()?, Path::new(source)),
        [PROBE, LISTED, name, list] => {
            checksum::find_in_file(Path::new(list), name).and_then(|found| answer(&found.to_string()))
        }
        [PROBE, REMOTE] => ssh::carry_out(Path::new(""), hand_on),
        [CONVERT, REMOTE, device] => ssh::carry_out(Path::new(device), hand_on),
        [PROBE, source] => probe(source).and_then(tell),
        [COPY] => copy(),
        [CONVERT, format, source, device] => convert(format, source, &PathBuf::from(device)),
        _ => Err(Error::invalid("this command is for the agent itself")),
    }
}

/// Looks at the image that is handed over, tells what it is, and copies a raw one to the device that is handed over then, if
/// one is.
fn copy() -> Result<()> {
    let (socket, name) = (std::io::stdin(), Path::new(sandbox::SOURCE));
    let Some(source) = hand::take(&socket)? else { return Ok(()) };
    let source = Look::of(source, name)?;
    privileges::confine()?;
    let found = source.screen(name)?;
    tell(found)?;
    let Screened::Disk { format: Format::Raw, virtual_size } = found else { return Ok(()) };
    let Some(device) = hand::take(&socket)? else { return Ok(()) };
    copy::copy(source.into_file(), virtual_size, &device)
}

fn tell(found: Screened) -> Result<()> {
    answer(&serde_json::to_string(&found).expect("a format and a number are JSON"))
}

/// Returns what the image at `source` is: a path, or the URL of an NBD export or an iSCSI LUN.
fn probe(source: &str) -> Result<Screened> {
    if let Some(far) = Far::of(source)? {
        return far.probe(source);
    }
    let found = screen(Path::new(source))?;
    if let Screened::Disk { format, .. } = found {
        whole(format, Path::new(source)).map_err(|e| e.while_doing(format!("accept image '{source}'")))?;
    }
    Ok(found)
}

/// Refuses a file whose tables lead beyond its end: qemu reads zeros there and says nothing.
fn whole(format: Format, source: &Path) -> Result<()> {
    match format {
        Format::Qcow2 | Format::Vmdk => {}
        // Nothing but bytes; and those whose ends have been looked at, here or by qemu when it opens them.
        Format::Raw | Format::Vdi | Format::Vpc | Format::Vhdx => return Ok(()),
    }
    let cmd = Cmd::new(Tool::QemuImg, LOOK).args(["check", "-q", "-f", &format.to_string()]).arg(source);
    match cmd.accept(LEAKS).run() {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == Kind::Failed => {
            Err(Error::invalid("it is damaged or cut short (qemu-img check)").because(e))
        }
        Err(e) => Err(e),
    }
}

/// What `qemu-img info` says.
#[derive(Deserialize)]
struct Info {
    #[serde(rename = "virtual-size")]
    virtual_size: u64,
}

/// What qemu reads over the network.
struct Far {
    options: String,
    secret: Option<Handed>,
}

impl Far {
    /// Returns what is at this source, unless it is a path.
    fn of(source: &str) -> Result<Option<Self>> {
        if let Ok(export) = source.parse::<Export>() {
            return Ok(Some(Self { options: export.options(), secret: None }));
        }
        let Ok(lun) = Lun::without_secret(source) else { return Ok(None) };
        Ok(Some(Self { options: lun.options(), secret: Some(lun.hand_on_secret()?) }))
    }

    /// Returns qemu's arguments for it.
    fn args(&self) -> Vec<String> {
        let objects = self.secret.as_ref().map(Handed::objects).unwrap_or_default();
        objects.into_iter().chain(["--image-opts".into(), self.options.clone()]).collect()
    }

    /// Asks how large it is.
    fn probe(&self, source: &str) -> Result<Screened> {
        let attempt = || format!("ask for '{source}'");
        let cmd = Cmd::new(Tool::QemuImg, LOOK).args(["info", "--output=json"]).args(self.args());
        let said = cmd.run().map_err(|e| without_driver(e, attempt()))?.stdout;
        let info: Info =
            serde_json::from_slice(&said).map_err(|e| Error::new(Kind::Failed, attempt()).because(e))?;
        Ok(Screened::Disk { format: Format::Raw, virtual_size: bootable_size(info.virtual_size)? })
    }
}

/// Returns the error of a qemu that was to reach somebody: it may not have learnt how.
fn without_driver(error: Error, attempt: String) -> Error {
    if error.to_string().contains("Unknown driver 'iscsi'") {
        let text = "QEMU's iSCSI driver is not installed: apt install qemu-block-extra";
        return Error::new(Kind::Missing, text);
    }
    Error::new(Kind::Missing, attempt).because(error)
}

fn sum(algorithm: checksum::Algorithm, source: &Path) -> Result<()> {
    let mut told = Instant::now();
    let sum = checksum::sum(source, algorithm, |done| {
        if told.elapsed() < TELL {
            return Ok(());
        }
        told = Instant::now();
        answer(&done.to_string())
    })?;
    answer(&sum.to_string())
}

/// Writes the image to the device.
fn convert(word: &str, source: &str, device: &Path) -> Result<()> {
    if let Ok(packing) = word.parse::<Packing>() {
        let size = unpack::unpack(packing, Path::new(source), device)?;
        return answer(&format!("{}{}", progress::SIZE, size.0));
    }
    let format: Format = word.parse()?;
    let far = Far::of(source)?;
    let args = match &far {
        Some(far) => far.args(),
        None => {
            still(format, Path::new(source))?;
            vec!["--image-opts".into(), options(format, source)]
        }
    };
    Err(qemu(&args, device).replace_process())
}

/// Refuses an image that is not what it was.
fn still(format: Format, source: &Path) -> Result<()> {
    match screen(source)? {
        Screened::Disk { format: found, .. } if found == format => Ok(()),
        Screened::Disk { format: found, .. } => {
            Err(Error::invalid(format!("the image has turned from {format} to {found}")))
        }
        Screened::Packed { packing, .. } => {
            Err(Error::invalid(format!("the image has turned from {format} to {packing}")))
        }
    }
}

/// Returns what qemu is told of the source: nothing is left for it to guess.
fn options(format: Format, source: &str) -> String {
    let file = match Path::new(source).is_file() {
        true => "file",
        false => "host_device",
    };
    // The other of a VHD's two sizes is a guess by cylinders.
    let more = if format == Format::Vpc { ",force_size_calc=current_size" } else { "" };
    format!("driver={format},file.driver={file},file.filename={source}{more}")
}

/// Returns the conversion. The unit has the deadline.
///
/// The volume is fresh and reads as zeros, so zeros are not written. `none`: straight to the disk, or a large image would
/// push everything else out of the page cache.
fn qemu(source: &[String], device: &Path) -> Cmd {
    Cmd::new(Tool::QemuImg, Duration::MAX)
        .args(["convert", "-p", "-n", "-W", "--target-is-zero", "-t", "none", "-O", "raw"])
        .args(source)
        .arg(device)
}

/// Hands bytes on to the agent; nothing, now and then, tells that there is nothing new.
fn hand_on(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).attempt(|| "hand on what came".into())
}

fn answer(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").attempt(|| "write the answer".into())
}

/// Reads what a look has told: its first line.
pub(super) fn screened(said: &[u8]) -> Result<Screened> {
    let line = said.split(|byte| *byte == b'\n').next().unwrap_or_default();
    serde_json::from_slice(line).map_err(|e| Error::new(Kind::Failed, "read what the image is").because(e))
}

/// Reads the disk's size that [`convert`] has told: the import believes no more of it than a size can be.
pub(super) fn unpacked_size(said: &str) -> Result<Bytes> {
    let size = said.lines().find_map(|line| line.trim().strip_prefix(progress::SIZE)?.parse().ok());
    size.ok_or_else(|| Error::new(Kind::Failed, "read how large the unpacked image is"))
        .and_then(bootable_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_words_are_refused() {
        for words in [
            &[][..],
            &["internal-probe"],
            &["internal-copy", "/x"],
            &["internal-convert", "raw", "/x"],
            &["internal-convert", "vhd", "/x", "/y"],
            &["internal-probe", "sum", "md5", "/x"],
            &["x", "y"],
        ] {
            let args: Vec<OsString> = words.iter().map(OsString::from).collect();
            assert_eq!(run(&args).unwrap_err().kind(), Kind::Invalid, "{words:?}");
        }
    }

    #[test]
    fn an_image_that_has_changed_meanwhile_is_not_converted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        for format in ["qcow2", "gz"] {
            let error = convert(format, path, Path::new("/dev/null")).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{format}");
        }
    }

    #[test]
    fn qemu_is_told_everything_and_guesses_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(options(Format::Vmdk, path), format!("driver=vmdk,file.driver=file,file.filename={path}"));
        assert!(options(Format::Vpc, path).ends_with(",force_size_calc=current_size"));
        assert!(options(Format::Raw, "/dev/donor").contains("file.driver=host_device"));
        let export: Export = "nbd://donor/disk".parse().unwrap();
        let far = Far::of(&export.to_string()).unwrap().unwrap();
        let shown = qemu(&far.args(), Path::new("/dev/image")).to_string();
        assert!(shown.contains(" --image-opts driver=raw,file.driver=nbd,"), "{shown}");
        assert!(!shown.contains(" -f "), "{shown}");
    }

    #[test]
    fn a_size_is_believed_only_where_a_disk_can_have_it() {
        let read = |said: &str| unpacked_size(said).map(|size| size.0).map_err(|e| e.kind());
        assert_eq!(read("\rsize 1048576\n"), Ok(1 << 20));
        assert_eq!(read("size 1048577\n"), Err(Kind::Invalid));
        assert_eq!(read("size 18446744073709551104\n"), Err(Kind::Invalid));
        assert_eq!(read("size x\n"), Err(Kind::Failed));
        assert_eq!(read(""), Err(Kind::Failed));
    }

    #[test]
    fn what_a_look_tells_is_one_line_of_json_or_an_error() {
        let said = br#"{"disk":{"format":"raw","virtual_size":1048576}}"#;
        let found = Screened::Disk { format: Format::Raw, virtual_size: Bytes::mib(1) };
        assert_eq!(screened(&[said.as_slice(), b"\n    (1.00/100%)\r"].concat()).unwrap(), found);
        for bad in [&b""[..], b"\n", b"{\n", b"[]\n"] {
            assert_eq!(screened(bad).unwrap_err().kind(), Kind::Failed);
        }
    }

    #[test]
    fn a_disk_whose_end_is_missing_is_refused_whatever_its_format() {
        let tool = Path::new(Tool::QemuImg.path());
        if !tool.exists() {
            let _ = writeln!(std::io::stdout(), "skipped: needs qemu-img (Debian package qemu-utils)");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path().join("raw");
        let mut file = std::fs::File::create(&raw).unwrap();
        (0..8_u8).for_each(|n| file.write_all(&[n + 1; 1 << 20]).unwrap());
        for format in [Format::Qcow2, Format::Vmdk, Format::Vdi, Format::Vpc, Format::Vhdx] {
            let path = folder.path().join(format.to_string());
            let words = ["convert", "-f", "raw", "-O", &format.to_string()];
            Cmd::new(Tool::QemuImg, LOOK).args(words).arg(&raw).arg(&path).run().unwrap();
            let source = path.to_str().unwrap();
            assert!(matches!(probe(source), Ok(Screened::Disk { .. })), "{format}");
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_len(path.metadata().unwrap().len() - (3 << 20)).unwrap();
            // Here, or in the conversion: qemu opens no VHDX whose blocks lie beyond its end.
            let info = ["info", "--image-opts", &options(format, source)];
            let opened = Cmd::new(Tool::QemuImg, LOOK).args(info).run();
            let refused = probe(source).and(opened).unwrap_err().chain();
            let why = ["cut short", "truncated"].iter().any(|why| refused.contains(why));
            assert!(why, "{format}: {refused}");
        }
    }
}
