//! What runs inside the sandbox: hidden subcommands of `sheath`, started by the import and by nobody else.
//!
//! The process has no privileges, no network, and sees one image and one device. It screens the image itself again,
//! because between the import's look and this one the file may have become another.

use std::{
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use super::header::{Format, Screened, screen};
use crate::{
    error::{Context, Error, Kind, Result},
    host::cmd::{Cmd, Tool},
};

/// The hidden subcommand that looks at an image: `internal-probe SOURCE`.
pub const PROBE: &str = "internal-probe";
/// The hidden subcommand that writes an image to a device: `internal-convert FORMAT SOURCE DEVICE`.
pub const CONVERT: &str = "internal-convert";

/// Runs the hidden subcommand whose name and arguments these are.
///
/// The probe writes one line of JSON to standard output. The conversion does not return when all is well: the process
/// becomes qemu-img.
///
/// # Errors
/// [`Kind::Invalid`] for other words and for refused images; else the failing system call.
pub fn run(args: &[OsString]) -> Result<()> {
    let words: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    match words[..] {
        [PROBE, source] => answer(&probe(Path::new(source))?),
        [CONVERT, format, source, device] => {
            Err(convert(format.parse()?, &PathBuf::from(source), &PathBuf::from(device)))
        }
        _ => Err(Error::invalid("this command is for the agent itself")),
    }
}

/// Returns what the image at `source` is.
///
/// # Errors
/// As [`screen`].
pub fn probe(source: &Path) -> Result<Screened> {
    screen(source)
}

/// Becomes the program that writes the image to the device; returns only why that was not possible.
pub fn convert(format: Format, source: &Path, device: &Path) -> Error {
    match screen(source) {
        Ok(found) if found.format == format => {}
        Ok(found) => {
            return Error::new(
                Kind::Invalid,
                format!("the image has turned from {format} to {}", found.format),
            );
        }
        Err(error) => return error,
    }
    // The volume is fresh and reads as zeros, so zeros are not written. `none`: straight to the disk, or a large image
    // would push everything else out of the page cache. The unit has the deadline.
    Cmd::new(Tool::QemuImg, Duration::MAX)
        .args([
            "convert",
            "-p",
            "-n",
            "-W",
            "--target-is-zero",
            "-t",
            "none",
            "-f",
            &format.to_string(),
            "-O",
            "raw",
        ])
        .arg(source)
        .arg(device)
        .replace_process()
}

fn answer(found: &Screened) -> Result<()> {
    let json = serde_json::to_string(found).expect("a format and a number are JSON");
    writeln!(std::io::stdout(), "{json}").attempt(|| "write the answer".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_words_are_refused() {
        for words in [&[][..], &["internal-probe"], &["internal-convert", "raw", "/x"], &["x", "y"]] {
            let args: Vec<OsString> = words.iter().map(OsString::from).collect();
            assert_eq!(run(&args).unwrap_err().kind(), Kind::Invalid, "{words:?}");
        }
        let vmdk = ["internal-convert", "vmdk", "/x", "/y"].map(OsString::from);
        assert!(run(&vmdk).unwrap_err().to_string().contains("vmdk"));
    }

    #[test]
    fn an_image_that_has_changed_meanwhile_is_not_converted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = convert(Format::Qcow2, file.path(), Path::new("/dev/null"));
        assert_eq!(error.kind(), Kind::Invalid);
    }
}
