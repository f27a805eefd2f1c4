//! How an image can be started: its first sector, its EFI system partition, the kernel's command line.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use super::tree::{list, matching, name, text, value, within};
use crate::{
    host::disk::convert,
    image::facts::{Boot, Mbr, Partition},
};

/// The types of the two partitions that firmware starts from, as the UEFI specification and GRUB have them.
pub(super) const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
/// Where firmware and iPXE look by themselves.
pub(super) const ESP_LOADER: &str = "EFI/BOOT/BOOTX64.EFI";
const BIOS_BOOT: &str = "21686148-6449-6e6f-744e-656564454649";
/// Words in GRUB's `boot.img` and in the first sector of its core image.
const GRUB: &[u8] = b"GRUB";
const CORE: &[u8] = b"loading";
const SECTOR: usize = 512;

/// Returns what the disk, its partitions (with their devices) and the mounted EFI system partition show.
pub(super) fn facts(disk: &Path, partitions: &[(Partition, PathBuf)], esp: Option<&Path>) -> Boot {
    let of_kind = |kind: &str| partitions.iter().find(|(partition, _)| partition.kind == kind);
    let core = of_kind(BIOS_BOOT);
    Boot {
        esp: of_kind(ESP).is_some(),
        removable: esp.is_some_and(|esp| removable(esp).is_some()),
        loaders: esp.map_or_else(Vec::new, loaders),
        bios_partition: core.is_some(),
        bios_code: has_word(disk, GRUB),
        bios_core: core.is_some_and(|(_, device)| has_word(device, CORE)),
        mbr: mbr(disk),
        ..Boot::default()
    }
}

/// Returns what making a GPT of the disk would be like. One that cannot be read has none.
fn mbr(disk: &Path) -> Option<Mbr> {
    let found = convert::outlook(disk).ok().flatten()?;
    Some(Mbr { dropped: found.dropped, refusal: found.refusal })
}

/// Returns whether the device's first sector has this word in it.
fn has_word(device: &Path, word: &[u8]) -> bool {
    let mut sector = [0; SECTOR];
    let read = File::open(device).and_then(|mut file| file.read_exact(&mut sector));
    read.is_ok() && sector.windows(word.len()).any(|window| window == word)
}

/// Returns the folder or file of this name, in whatever case.
fn child(folder: &Path, wanted: &str) -> Option<PathBuf> {
    list(folder).into_iter().find(|path| name(path).eq_ignore_ascii_case(wanted))
}

/// Returns the loader that firmware and iPXE find by themselves.
pub(super) fn removable(esp: &Path) -> Option<PathBuf> {
    child(&child(&child(esp, "EFI")?, "BOOT")?, "BOOTX64.EFI").filter(|path| path.is_file())
}

/// Returns the boot loaders of vendors: GRUB first, because it is what the others lead to.
pub(super) fn loaders(esp: &Path) -> Vec<String> {
    let Some(efi) = child(esp, "EFI") else { return vec![] };
    let vendors = list(&efi).into_iter().filter(|path| !name(path).eq_ignore_ascii_case("BOOT"));
    let mut found: Vec<String> = vendors
        .flat_map(|vendor| list(&vendor))
        .filter(|path| path.is_file() && name(path).to_ascii_lowercase().ends_with(".efi"))
        .map(|path| within(esp, &path))
        .collect();
    found.sort_by_key(|path| !path.to_ascii_lowercase().contains("grubx64"));
    found
}

/// Returns the kernel's command line as the boot loader's configuration has it: GRUB's own, boot loader entries, or what
/// both are made from.
pub(super) fn cmdline(root: &Path) -> String {
    for path in ["boot/grub/grub.cfg", "boot/grub2/grub.cfg"] {
        let config = text(&root.join(path));
        let lines = config.lines().map(str::trim);
        let kernel = lines.filter(|line| line.starts_with("linux")).find(|line| line.contains("vmlinuz"));
        if let Some(line) = kernel {
            return line.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
        }
    }
    let entries = matching(&root.join("boot/loader/entries"), "", ".conf");
    let entries = entries.iter().map(|path| text(path)).collect::<String>();
    let options = entries.lines().filter_map(|line| line.strip_prefix("options "));
    let defaults = text(&root.join("etc/default/grub"));
    let defaults =
        ["GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"].iter().filter_map(|key| value(&defaults, key));
    options.map(str::to_owned).chain(defaults).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{super::tree::tests::plant, *};

    fn sector(dir: &Path, file: &str, word: &str) -> PathBuf {
        plant(dir, &[(file, &format!("{:512}", format!("....{word}")))]);
        dir.join(file)
    }

    #[test]
    fn grub_is_known_by_its_words_and_firmware_partitions_by_their_types() {
        let dir = tempfile::tempdir().unwrap();
        let disk = sector(dir.path(), "disk", "GRUB \0Geom");
        let core = sector(dir.path(), "core", "loading");
        let kind = |number, kind: &str| Partition { number, kind: kind.into(), ..Partition::default() };
        let with_core = facts(&disk, &[(kind(1, BIOS_BOOT), core)], None);
        assert!(with_core.bios_code && with_core.bios_partition && with_core.bios_core && !with_core.esp);
        let blank = sector(dir.path(), "blank", "");
        let without =
            facts(&blank, &[(kind(1, BIOS_BOOT), blank.clone()), (kind(2, ESP), blank.clone())], None);
        assert!(!without.bios_code && without.bios_partition && !without.bios_core && without.esp);
        assert!(!facts(Path::new("/nowhere"), &[], None).bios_code);
    }

    #[test]
    fn the_removable_loader_is_found_in_any_case_and_a_vendors_is_not_it() {
        let dir = tempfile::tempdir().unwrap();
        plant(dir.path(), &[("EFI/debian/shimx64.efi", ""), ("EFI/debian/grubx64.efi", "")]);
        assert_eq!(removable(dir.path()), None);
        assert_eq!(loaders(dir.path()), ["EFI/debian/grubx64.efi", "EFI/debian/shimx64.efi"]);
        plant(dir.path(), &[("EFI/boot/bootx64.efi", "")]);
        assert!(removable(dir.path()).is_some());
    }

    #[test]
    fn the_command_line_comes_from_what_the_boot_loader_reads() {
        let dir = tempfile::tempdir().unwrap();
        plant(
            dir.path(),
            &[(
                "etc/default/grub",
                "GRUB_CMDLINE_LINUX=\"console=ttyS0\"\nGRUB_CMDLINE_LINUX_DEFAULT=quiet\n",
            )],
        );
        assert_eq!(cmdline(dir.path()), "console=ttyS0 quiet");
        plant(dir.path(), &[("boot/loader/entries/a.conf", "title x\noptions root=UUID=1 ro\n")]);
        assert!(cmdline(dir.path()).starts_with("root=UUID=1 ro"));
        plant(
            dir.path(),
            &[(
                "boot/grub/grub.cfg",
                "menuentry x {\n\tlinux\t/boot/vmlinuz-6 root=LABEL=root ro iscsi_auto\n}\n",
            )],
        );
        assert_eq!(cmdline(dir.path()), "root=LABEL=root ro iscsi_auto");
    }
}
