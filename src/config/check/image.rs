//! `[image.NAME]`: what disks made from an image are like.

use std::collections::BTreeMap;

use toml::{Spanned, de::DeValue};

use super::{disk::DiskTable, number, policy::PolicyDisks};
use crate::{
    config::{
        ImageProfile,
        raw::{Reader, Section},
    },
    model::{ImageName, Template},
};

pub(super) fn images(
    reader: &mut Reader<'_>,
    top: &Section<'_, '_>,
    disks: &mut PolicyDisks,
) -> BTreeMap<ImageName, ImageProfile> {
    let section = top.table(reader, "image", "image");
    let mut images = BTreeMap::new();
    for (key, section) in section.tables(reader, "image.NAME") {
        section.refuse_unknown(reader);
        let profile = profile(reader, &section, disks);
        match key.get_ref().parse::<ImageName>() {
            Ok(name) => drop(images.insert(name, profile)),
            Err(_) => {
                let expected = "an image name (1 to 40 of a-z 0-9 . -, starting with a letter or digit)";
                let found = reader.written(key.span());
                reader.fault(key.span(), section.path(), expected, &found);
            }
        }
    }
    images
}

fn profile(reader: &mut Reader<'_>, section: &Section<'_, '_>, disks: &mut PolicyDisks) -> ImageProfile {
    let disk = DiskTable::read(reader, section);
    disks.check_image(reader, &disk, section.path());
    let spares = section.value(reader, "spares", |v| number(v, 0..=1000));
    let ssh_keys = section.value(reader, "ssh_keys", ssh_keys);
    let user_data = section.value(reader, "user_data", |v| v.as_str().map(str::to_owned));
    let user_data = user_data.and_then(|text| template(reader, section, &text));
    ImageProfile {
        disk: disk.keys,
        spares: spares.map_or(0, Spanned::into_inner),
        ssh_keys: ssh_keys.map(Spanned::into_inner).unwrap_or_default(),
        user_data,
    }
}

fn template(reader: &mut Reader<'_>, section: &Section<'_, '_>, text: &Spanned<String>) -> Option<Template> {
    Template::new(text.get_ref().as_str())
        .map_err(|fault| {
            let expected = "a template (blade, mac, slot, hostname, image, version; '{% raw %}' for braces)";
            reader.fault(text.span(), &section.path_of("user_data"), expected, &fault.to_string());
        })
        .ok()
}

fn ssh_keys(value: &DeValue<'_>) -> Option<Vec<String>> {
    let keys = value.as_array()?.iter().map(|key| key.get_ref().as_str().filter(|key| is_ssh_key(key)));
    keys.map(|key| key.map(str::to_owned)).collect()
}

/// Returns whether this is a line of an `authorized_keys` file: a type, base64, perhaps a comment.
fn is_ssh_key(text: &str) -> bool {
    let mut words = text.split(' ');
    let kind = words.next().unwrap_or_default();
    let known = ["ssh-", "ecdsa-", "sk-"].iter().any(|prefix| kind.starts_with(prefix));
    let base64 = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/' | b'=');
    let body = words.next().is_some_and(|body| body.len() >= 16 && body.bytes().all(base64));
    known && body && !text.chars().any(char::is_control)
}
