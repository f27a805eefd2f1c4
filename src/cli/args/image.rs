//! The words of `sheath image`.

use std::path::PathBuf;

use clap::{
    Subcommand, ValueEnum, ValueHint,
    builder::{PossibleValuesParser, TypedValueParser},
};

use crate::{
    image::Checksum,
    model::{Firmware, ImageName, ImageRef, Slot},
};

/// What can be done with one image.
#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// Import an image from a file, a URL, a donor's disk, another machine, or over NBD or iSCSI
    ///
    /// Disks may be raw, qcow2, VMDK, VHDX, VDI or VHD; raw ones also packed with gzip, xz, Zstandard or bzip2. The agent
    /// does the work and goes on when this command is stopped: the same command again shows how far it is, `sheath images`
    /// too, and `sheath image cancel` ends it. An import that is cut off with the agent, by a crash or a restart, goes on by
    /// itself, with what is fetched already. A transfer that breaks off is taken up again where it was.
    Import(ImportArgs),
    /// Make the disk of a machine in a slot an image, over the network
    ///
    /// For a server whose disk stays where it is. Plug its network into the slot, type this, and start it by PXE: a small Linux
    /// of this machine's own copies what is in use of the disk to a target that is there for it alone, reads it back,
    /// compares, and switches the server off. The server's disk is only read. Shut the server down before, so that its file
    /// systems are whole.
    Capture(CaptureArgs),
    /// Let blades choose an image that is proved to boot
    ///
    /// Proved is what `sheath image prove` has seen boot, by BIOS or by UEFI. Anything else is refused unless --unproved is
    /// given; that it was published so is told in the journal and by `sheath image show`.
    Publish {
        /// The image: NAME@VERSION, or NAME for its newest version
        #[arg(value_name = "IMAGE")]
        image: ImageRef,
        /// Publish it although it is not proved to boot
        #[arg(long)]
        unproved: bool,
    },
    /// Stop blades from choosing an image; disks made from it stay
    Unpublish {
        /// The image: NAME@VERSION, or NAME where there is one version only
        #[arg(value_name = "IMAGE")]
        image: ImageRef,
    },
    /// Show everything about an image: where it came from, what it takes, whose disks came from it
    Show {
        /// The image: NAME for its default version, or NAME@VERSION
        #[arg(value_name = "IMAGE")]
        image: ImageRef,
    },
    /// Make a version the one that the image's name stands for
    ///
    /// Menus, policies and commands that name an image without a version mean its default version: the newest published
    /// one, unless another was chosen here. NAME alone goes back to the newest published one.
    Default {
        /// The image: NAME@VERSION, or NAME
        #[arg(value_name = "IMAGE")]
        image: ImageRef,
    },
    /// Make the disk of a blade the next version of an image
    ///
    /// Takes a snapshot: nothing is copied, and the blade keeps its disk. Shut the blade down first; the disk of one that
    /// runs can be taken with --running, as a power cut would leave it, or with --running --freeze, with its file systems whole. What makes the blade itself (host name, keys,
    /// machine id) is in its disk and comes along: seal the image before others are made from it.
    Promote(PromoteArgs),
    /// Write an image to a file
    ///
    /// The file belongs to whoever calls this, and appears whole or not at all. What is zero takes no space in it.
    Export(ExportArgs),
    /// Remove an image that no disk came from
    Remove {
        /// The image: NAME@VERSION, or NAME where there is one version only
        #[arg(value_name = "IMAGE")]
        image: ImageRef,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Look what an image lacks to boot over iSCSI, with the fix for each line
    ///
    /// A small Linux, made of what this machine has installed, looks into a thin clone of it in a guest that is thrown away;
    /// the image is not touched. Ends with status 1 when something is to be mended.
    Check {
        /// The image: NAME for its default version, or NAME@VERSION
        #[arg(value_name = "IMAGE")]
        image: ImageRef,
    },
    /// Stop the import of an image, or the check, seal or proof of it; nothing stays of it
    ///
    /// Whoever waits for it gets an error that says so (exit code 7).
    Cancel {
        /// The image: NAME@VERSION, or NAME for whichever of its versions something is done with
        #[arg(value_name = "IMAGE")]
        image: ImageRef,
    },
    /// Make a version of an image that any blade can have
    ///
    /// Another machine's identity is removed (machine id, SSH host keys, leases, random seeds, cloud-init's memory, interface
    /// names); the initiator's name comes from the firmware, the boot NIC stays up until the end, the initramfs logs in over
    /// iSCSI, the boot loader goes where UEFI looks. What was changed is listed. The image itself stays as it is: the result
    /// is its next version, not published. An image that lacks nothing gets none.
    Seal {
        /// The image: NAME for its default version, or NAME@VERSION
        #[arg(value_name = "IMAGE")]
        image: ImageRef,
        /// List what would be changed, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Prove that an image boots: start a throw-away disk of it, to its login prompt
    ///
    /// The disk is made and served as a blade's. A guest on this machine starts from it by firmware, PXE, iPXE with the
    /// blade's own script, and iSCSI with CHAP; its network is QEMU's, not the chassis'. The login prompt has to come on the
    /// serial console, whose log is kept. Without virtualisation (/dev/kvm) this takes minutes.
    Prove {
        /// The image: NAME for its default version, or NAME@VERSION
        #[arg(value_name = "IMAGE")]
        image: ImageRef,
        /// What it is started by
        #[arg(long, value_enum, default_value_t = ProofFirmware::Both)]
        firmware: ProofFirmware,
    },
    /// Lead an image all the way: seal it where it needs that, prove it, publish it
    ///
    /// What `seal`, `prove` and `publish` do, one after the other. Ends where one of them fails; what was made until then stays.
    Offer {
        /// The image: NAME for its newest version, or NAME@VERSION
        #[arg(value_name = "IMAGE")]
        image: ImageRef,
        /// What it is proved by; with `both`, by whichever the image is made for
        #[arg(long, value_enum, default_value_t = ProofFirmware::Both)]
        firmware: ProofFirmware,
    },
    /// Show what stood on the console of an image's last proof
    ///
    /// A terminal's commands are left out of it, other control characters are escaped; with --json it is as the guest wrote it.
    Log {
        /// The image: NAME for its default version, or NAME@VERSION
        #[arg(value_name = "IMAGE")]
        image: ImageRef,
        /// Of the last proof by this firmware
        #[arg(long, value_parser = PossibleValuesParser::new(["bios", "uefi"]).try_map(|word| word.parse::<Firmware>()))]
        firmware: Option<Firmware>,
    },
    /// Show the SSH key that this appliance reads other machines' disks with; make it where there is none
    ///
    /// For `sheath image import NAME ssh://…`: the line goes into ~/.ssh/authorized_keys there. The key is in /etc/sheath/ssh,
    /// for root alone, as is this command; beside it, in known_hosts, are the machines whose host keys are accepted.
    Key,
}

/// What becomes of an image that is on its way here.
#[derive(Debug, Clone, clap::Args)]
pub struct ThenArgs {
    /// Let blades choose it as soon as it is there; with --unproved only, because nothing is proved of it by then
    #[arg(long)]
    pub publish: bool,
    /// Publish it although it is not proved to boot
    #[arg(long, requires = "publish")]
    pub unproved: bool,
    /// When it is there, seal, prove and publish it (`sheath image offer`)
    #[arg(long, conflicts_with_all = ["publish", "no_wait"])]
    pub offer: bool,
    /// Return as soon as the agent has begun
    #[arg(long)]
    pub no_wait: bool,
}

/// `sheath image import`.
#[derive(Debug, Clone, clap::Args)]
pub struct ImportArgs {
    /// The image's name; where there is one of that name, this becomes its next version
    pub name: ImageName,
    /// The file, a donor's disk (/dev/sdc, see `sheath donors`), an http:// or https:// URL, ssh://HOST/PATH (a file or a disk
    /// of another machine, see `sheath image key`), nbd://HOST:PORT/EXPORT, iscsi://HOST/IQN/LUN, or slot:N (see `sheath image
    /// capture`)
    #[arg(value_name = "SOURCE", value_hint = ValueHint::FilePath)]
    pub source: String,
    /// What becomes of it.
    #[command(flatten)]
    pub then: ThenArgs,
    /// Refuse any other file than the one with this SHA-256 checksum (64 hex digits; SHA-512: 128)
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<Checksum>,
    /// Refuse the file unless its checksum is the one beside its name in this list (SHA256SUMS, SHA512SUMS)
    #[arg(long, value_name = "FILE|URL", value_hint = ValueHint::FilePath)]
    pub checksum: Option<String>,
}

/// `sheath image capture`.
#[derive(Debug, Clone, clap::Args)]
pub struct CaptureArgs {
    /// The slot that the server is plugged into
    pub slot: Slot,
    /// The image's name; where there is one of that name, this becomes its next version
    pub name: ImageName,
    /// Which of its disks, where it has several: kernel name (sda, nvme0n1), serial number or WWN
    #[arg(long, value_name = "DISK")]
    pub disk: Option<String>,
    /// What becomes of it.
    #[command(flatten)]
    pub then: ThenArgs,
}

/// `sheath image promote`.
#[derive(Debug, Clone, clap::Args)]
pub struct PromoteArgs {
    /// The number of the blade's slot
    pub slot: Slot,
    /// The image's name; where there is one of that name, this becomes its next version
    pub name: ImageName,
    /// Take the disk although the blade runs: as a power cut would leave it
    #[arg(long)]
    pub running: bool,
    /// Have the blade's file systems stand still meanwhile, over SSH with this appliance's key (see `sheath image key`): all
    /// that was written is in the image, and whole. Refused where that cannot be done
    #[arg(long, requires = "running")]
    pub freeze: bool,
    /// Who logs in to the blade for that: root, or somebody who may use sudo without a password
    #[arg(long, value_name = "USER", default_value = "root")]
    pub freeze_as: String,
    /// Let blades choose it at once; with --unproved only, because nothing is proved of it by then
    #[arg(long)]
    pub publish: bool,
    /// Publish it although it is not proved to boot
    #[arg(long, requires = "publish")]
    pub unproved: bool,
    /// When it is there, seal, prove and publish it (`sheath image offer`)
    #[arg(long, conflicts_with_all = ["publish", "dry_run"])]
    pub offer: bool,
    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// `sheath image export`.
#[derive(Debug, Clone, clap::Args)]
pub struct ExportArgs {
    /// The image: NAME for its default version, or NAME@VERSION
    pub image: ImageRef,
    /// The file
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// How it is stored
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub format: ExportFormat,
    /// Replace a file that is there
    #[arg(long)]
    pub force: bool,
}

/// How an exported image is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// The disk's bytes; the file is sparse.
    Raw,
    /// QEMU's format.
    Qcow2,
}

/// What a proof is started by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ProofFirmware {
    /// A PC BIOS
    Bios,
    /// UEFI without Secure Boot
    Uefi,
    /// One after the other
    Both,
}

impl ProofFirmware {
    /// Returns the firmware that is meant, in the order in which it is tried.
    pub(crate) fn all(self) -> &'static [Firmware] {
        match self {
            Self::Bios => &[Firmware::Bios],
            Self::Uefi => &[Firmware::Uefi],
            Self::Both => &[Firmware::Bios, Firmware::Uefi],
        }
    }
}
