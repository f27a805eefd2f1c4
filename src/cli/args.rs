//! The words of the command line. Help, completions and manual pages are all made from what stands here.
//!
//! Values become checked types at once, so that no command ever holds a name that could not exist.

use std::{ffi::OsString, net::Ipv4Addr, path::PathBuf};

use clap::{
    Parser, Subcommand, ValueEnum, ValueHint,
    builder::{PossibleValuesParser, TypedValueParser},
};
use clap_complete::Shell;

use crate::{
    config::parse_address,
    control::api::SOCKET,
    image::Checksum,
    model::{BladeId, Bytes, Firmware, Growth, ImageId, ImageName, ImageRef, Iqn, PortName, Slot, VgName},
};

/// Where the configuration is.
pub const CONFIG: &str = "/etc/sheath/sheath.toml";

/// What the exit codes mean: [`Kind::exit_code`](crate::error::Kind::exit_code) in words.
pub const EXIT_STATUS: &[(u8, &str)] = &[
    (0, "done; for an accepted request: the agent has taken it over"),
    (1, "failed, in a way that no other code says"),
    (2, "the command line was not understood"),
    (3, "invalid input, such as a faulty configuration"),
    (4, "something does not exist: a blade, an image, the agent's socket"),
    (5, "something exists already, and is not what was asked for"),
    (6, "in use by somebody; may be free later"),
    (7, "refused by policy, by missing permission, or not confirmed"),
    (8, "too full"),
    (9, "did not come back within its time"),
];

/// Operates a blade appliance: diskless servers that boot from their own iSCSI target.
///
/// Every command asks sheathd, the agent, over its control socket, unless it says otherwise. With --json the answer is
/// what the agent's API says, for scripts; errors go to standard error as text, and the exit code tells their kind.
#[derive(Debug, Parser)]
#[command(name = "sheath", version, propagate_version = true, max_term_width = 100, after_long_help = exit_status())]
pub struct Args {
    /// Flags that every command takes.
    #[command(flatten)]
    pub globals: Globals,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Globals {
    /// Print JSON for scripts instead of text for people
    #[arg(long, global = true)]
    pub json: bool,
    /// The agent's control socket
    #[arg(long, global = true, value_name = "PATH", default_value = SOCKET, value_hint = ValueHint::FilePath)]
    pub socket: PathBuf,
    /// When to colour the output; NO_COLOR turns 'auto' off
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
}

/// When to colour the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show how the appliance is: slots, pool, problems
    Status,
    /// List the blades
    Blades,
    /// Show, install, grow, release or move one blade
    #[command(subcommand)]
    Blade(BladeVerb),
    /// List the images
    Images,
    /// Import, publish or remove an image
    #[command(subcommand)]
    Image(ImageVerb),
    /// List all iSCSI targets of this machine, ours and foreign
    Targets,
    /// List who is logged in, and what was refused
    ///
    /// One line per session, foreign targets' too. While a blade goes from iPXE to its operating system it has two: the
    /// kernel shows the latest, the other is counted beside it. READ, WRITTEN and the operations in brackets are the
    /// disk's since its volume was activated.
    Sessions,
    /// Close a session
    #[command(subcommand)]
    Session(SessionVerb),
    /// Make the volume of a target that is not ours the disk of a blade
    ///
    /// For a target that was made by hand, with targetcli for example, and serves one thin volume of the appliance's pool.
    /// The plan is shown first. The foreign target and its backstore are removed, the volume is renamed and keeps its data, and
    /// the blade boots from a target of ours from then on: with the initiator name and the CHAP credentials that the agent
    /// hands out. Nobody may be logged in meanwhile.
    Adopt(AdoptArgs),
    /// Show what the agent would change now; changes nothing
    Plan,
    /// Show what happened, and what happens
    Events(EventsArgs),
    /// Check the configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Make the agent read its configuration again
    Reload,
    /// Turn this machine into a blade appliance; needs no agent yet
    ///
    /// Makes an LVM thin pool, the configuration and the master key, and starts the services. It shows its plan and asks
    /// first; it refuses a disk that holds anything and ports that somebody uses. It can be run again, also after it
    /// was stopped half-way: what is so already is left alone.
    Setup(SetupArgs),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write all of them to a folder
    Man {
        /// The folder for all pages, one per command
        #[arg(value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
    /// List the disks that are plugged in here and are not the appliance's own
    ///
    /// Such a disk becomes an image with `sheath image import NAME DEVICE`. It is only ever read. One that is mounted, or
    /// that LVM, RAID or the like has taken over, is refused until it is left alone.
    Donors,
    /// Look at an image file from inside the sandbox
    #[command(hide = true)]
    InternalProbe {
        /// What the agent passes on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Convert an image file from inside the sandbox
    #[command(hide = true)]
    InternalConvert {
        /// What the agent passes on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Be the first process of the workshop's guest
    #[command(hide = true)]
    InternalWorkshop,
    /// Make the workshop in a folder
    #[command(hide = true)]
    InternalBuildWorkshop {
        /// The folder
        folder: PathBuf,
        /// Whom it is for
        flavour: String,
    },
}

/// What can be done with one blade.
#[derive(Debug, Subcommand)]
pub enum BladeVerb {
    /// Show everything about the blade in a slot
    Show {
        /// The slot's number
        slot: Slot,
    },
    /// Give the blade in a slot a disk made from an image
    Install(InstallArgs),
    /// Take the disk of a slot's blade away: target and volume are deleted
    Release {
        /// The slot's number
        slot: Slot,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Make a blade's disk larger, also while it runs; a disk cannot shrink
    ///
    /// The blade's operating system sees the new size after `iscsiadm -m session -R`, or when it starts the next time. What
    /// is on the disk belongs to the blade, so the rest is done there: the new room lies behind the last partition, where
    /// `sgdisk --move-second-header --new 0:0:0 /dev/sda` makes one more (for LVM, Btrfs or a file system of its own). The
    /// root partition cannot be grown in place, because the seed's partition lies behind it.
    Grow {
        /// The slot's number
        slot: Slot,
        /// The new size (40GiB), or by how much (+10GiB)
        size: Growth,
        /// Show what would be done, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Bind a blade's disk to the slot that the blade is in now
    Move {
        /// The blade: its id (b-525400123456) or MAC address
        blade: BladeId,
        /// The slot's number
        slot: Slot,
    },
    /// Do now what waits until the blade is off: its session is ended for it
    Apply {
        /// The slot's number
        slot: Slot,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// `sheath blade install`.
#[derive(Debug, Clone, clap::Args)]
pub struct InstallArgs {
    /// The slot's number
    pub slot: Slot,
    /// The image: NAME for its default version, or NAME@VERSION
    pub image: ImageRef,
    /// Delete the disk that the blade has
    #[arg(long)]
    pub replace: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// What can be done with one image.
#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// Import an image from a file, a URL, a donor's disk or an NBD export
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
    /// runs can be taken with --running, as a power cut would leave it. What makes the blade itself (host name, keys,
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
    /// What `seal`, `prove` and `publish` do, one after the other, each by the firmware that the image is made for. Ends where
    /// one of them fails; what was made until then stays.
    Offer {
        /// The image: NAME for its newest version, or NAME@VERSION
        #[arg(value_name = "IMAGE")]
        image: ImageRef,
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
    /// The file, a donor's disk (/dev/sdc, see `sheath donors`), an http:// or https:// URL, nbd://HOST:PORT/EXPORT, or slot:N
    /// (see `sheath image capture`)
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

/// `sheath adopt`.
#[derive(Debug, Clone, clap::Args)]
pub struct AdoptArgs {
    /// The target's name, as 'sheath targets' shows it
    #[arg(value_name = "IQN")]
    pub target: Iqn,
    /// The slot that the disk belongs to from then on
    #[arg(long, value_name = "N")]
    pub slot: Slot,
    /// The blade, if it was not seen in the slot yet: its MAC address
    #[arg(long, value_name = "MAC")]
    pub blade: Option<BladeId>,
    /// What the disk is said to come from; there need not be an image of this name
    #[arg(long, value_name = "NAME", default_value = "adopted")]
    pub image: ImageId,
    /// Show what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
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

/// What can be done with one session.
#[derive(Debug, Subcommand)]
pub enum SessionVerb {
    /// Close the session of the blade in a slot
    ///
    /// Nothing of the configuration changes, and the blade may log in again: an operating system does so by itself and
    /// goes on with the I/O that it had under way, iPXE starts its boot anew or fails. To keep a blade out, release its
    /// disk.
    Drop {
        /// The slot's number
        slot: Slot,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// `sheath events`.
#[derive(Debug, Clone, clap::Args)]
pub struct EventsArgs {
    /// Go on with what happens from now on
    #[arg(short, long)]
    pub follow: bool,
    /// Only events about this slot
    #[arg(long, value_name = "N")]
    pub slot: Option<Slot>,
}

/// `sheath setup`.
#[derive(Debug, Clone, clap::Args)]
#[command(group(clap::ArgGroup::new("space").required(true).args(["disk", "file"])))]
pub struct SetupArgs {
    /// The disk for the pool; it must be blank
    #[arg(long, value_name = "DEV", value_hint = ValueHint::FilePath)]
    pub disk: Option<PathBuf>,
    /// Instead of a disk: the size of a file below /var/lib/sheath-pool, for trying it out
    #[arg(long, value_name = "SIZE")]
    pub file: Option<Bytes>,
    /// The interfaces that blades are plugged into, slot 1 first
    #[arg(long, value_name = "IF,IF…", value_delimiter = ',', required = true)]
    pub slots: Vec<PortName>,
    /// The appliance's address on the chassis network, such as 10.77.0.1/24
    #[arg(long, value_name = "CIDR", value_parser = address)]
    pub address: (Ipv4Addr, u8),
    /// The volume group to make
    #[arg(long, value_name = "NAME", default_value = "sheath")]
    pub vg: VgName,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// Reads an address with its prefix length.
fn address(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let expected = "not an IPv4 address of a host and its prefix length (8 to 30), such as 10.77.0.1/24";
    parse_address(text).ok_or_else(|| expected.to_owned())
}

/// What can be done with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// List every fault of a configuration file; needs no agent
    Check {
        /// The file
        #[arg(default_value = CONFIG, value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

/// Returns the whole command, for completions and manual pages.
pub fn command() -> clap::Command {
    <Args as clap::CommandFactory>::command()
}

fn exit_status() -> String {
    let lines = EXIT_STATUS.iter().map(|(code, what)| format!("  {code}  {what}"));
    format!("Exit status:\n{}", lines.collect::<Vec<_>>().join("\n"))
}
