//! The two files of a donor's small Linux, as a blade's iPXE fetches them: a kernel and an initramfs, nothing secret.
//!
//! sheathd makes them in a folder of its own in [`FOLDER`], named after the kernel; there is one at a time. This process
//! only reads.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Response, StatusCode, header},
};
use futures_util::stream;

use super::connections::plain;

/// Where the donor's Linux is: whatever is in it can be made again.
pub const FOLDER: &str = "/var/cache/sheath/donor";
/// What can be fetched.
const FILES: [&str; 2] = ["vmlinuz", "initrd"];
/// A piece of a file: what is read while nobody else is answered, some tenths of a millisecond.
const PIECE: usize = 128 << 10;

/// Returns the file of this name, piece by piece.
pub(super) fn answer(folder: &Path, name: &str) -> Response<Body> {
    match FILES.contains(&name).then(|| find(folder, name)).flatten() {
        Some((file, len)) => whole(file, len),
        None => plain(StatusCode::NOT_FOUND, "there is nothing here"),
    }
}

/// Finds the file in the one folder that is whole.
fn find(folder: &Path, name: &str) -> Option<(File, u64)> {
    let folders = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let open = |folder: PathBuf| {
        let file = File::open(folder.join(name)).ok()?;
        let len = file.metadata().ok()?.len();
        Some((file, len))
    };
    folders.filter(|folder| !folder.ends_with("partial")).find_map(open)
}

fn whole(file: File, len: u64) -> Response<Body> {
    let pieces = stream::unfold(file, async |mut file| {
        let mut piece = vec![0; PIECE];
        match file.read(&mut piece) {
            Ok(0) => None,
            Ok(read) => {
                piece.truncate(read);
                Some((io::Result::Ok(Bytes::from(piece)), file))
            }
            Err(e) => Some((Err(e), file)),
        }
    });
    let mut answer = Response::new(Body::from_stream(Box::pin(pieces)));
    answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    answer
}
