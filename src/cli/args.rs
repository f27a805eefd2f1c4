//! The words of the command line. Help, completions and manual pages are all made from what stands here.
//!
//! Values become checked types at once, so that no command ever holds a name that could not exist.

mod image;

use std::{ffi::OsString, net::Ipv4Addr, path::PathBuf};

use clap::{Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

pub use image::{
    CaptureArgs, ExportArgs, ExportFormat, ImageVerb, ImportArgs, PromoteArgs, ProofFirmware, ThenArgs,
};

use crate::{
    config::parse_address,
    control::api::SOCKET,
    model::{BladeId, Bytes, Growth, ImageId, ImageRef, Iqn, PortName, Slot, VgName},
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
    /// Look at an image file and copy a raw one, from inside the sandbox
    #[command(hide = true)]
    InternalCopy {
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
