//! Sheath turns a Linux storage box into a blade appliance: a diskless server that is slid into the chassis gets its own
//! iSCSI boot disk, a thin clone of a golden image, and boots from it with nothing but PXE firmware.
//!
//! One library, three thin binaries:
//!
//! | binary | rights | does |
//! |---|---|---|
//! | `sheathd` | root with five capabilities, no network listener | the only process that touches the kernel and LVM |
//! | `sheath-bootd` | none | answers the blades' iPXE over HTTP; asks sheathd over a unix socket |
//! | `sheath` | the operator's | the command line, over sheathd's control socket |
//!
//! # The one line that every event takes
//!
//! ```text
//!   watch  (netlink · udev · inotify · kernel log · sessions · clock)     blades' and the operator's questions
//!                     └────────────► daemon::core::Event ◄─────────────────────────┘
//!   roster    learns who is where                       facts, saved
//!   policy    (Config, Roster) → wishes                 what should exist, per blade
//!   apply     a lane takes the wish …
//!     host      observe                                 what LIO, LVM and the bridge have
//!     plan      (wish, observed) → steps                ordered, idempotent, plain data
//!     host      run each step                           Changed or AlreadyTrue, each within its deadline
//!             … and its Report is the next Event        journal line, status, held-back questions answered
//! ```
//!
//! Start-up, recovery after a crash, a hand edit and a new configuration are the same line.
//!
//! # Rooms
//!
//! Each uses only what stands below it; `tests/layers.rs` holds the arrows.
//!
//! ```text
//!   bin                                             parse, call the library, exit code
//!   daemon     bootd      cli                       wiring
//!   watch      control    boot                      edges: events in, answers out
//!   apply      image                                acting
//!   host       configfs · lio · lvm · netlink · udev · disk · service · cmd │ sim
//!   plan       policy     roster     status    config      pure: no I/O, no clock
//!   observed   model      error                     nouns
//! ```
//!
//! # Words
//!
//! LIO's, LVM's and iPXE's own words mean what they mean there. Ours:
//!
//! | word | meaning |
//! |---|---|
//! | slot | a place in the chassis: a port of the appliance's bridge |
//! | blade | a server, known by the address of the NIC that it boots from |
//! | image | a golden image: a thin volume that clones are made of |
//! | family, version | an image's name, and one immutable image of that name: `debian13`, `debian13@3` |
//! | default version | what a family's name stands for: the pinned version, else the newest published one |
//! | manifest | what is known of a version beyond its volume; words only |
//! | promotion | a blade's disk becomes the next version of a family |
//! | donor | a server whose disk becomes an image |
//! | workshop | a small Linux, made of what the appliance has: images are looked into and worked on in it, and donors copy their disks |
//! | capture | a donor that starts over the network copies its disk to the volume of a new image |
//! | check, seal, proof | what an image lacks to boot over iSCSI; making it so; a throw-away disk of it that has booted |
//! | clone, disk, spare | a thin snapshot of an image; a blade's; nobody's yet |
//! | grant | the one-shot right to install, consumed when the disk is ready |
//! | seed | the `CIDATA` partition: the blade's identity for cloud-init |
//! | export | all that LIO holds for one disk: backstore, target, TPG, LUN 0, ACL |
//! | wish, observation, step | what should be, what is, one idempotent act between them |
//! | held step | one that would end a blade's session: it waits until the blade is off, or for consent |
//! | drift | what somebody else changed in an export of ours |
//! | foreign | a target that is not below our IQN prefix: left alone, unless the operator gives it to us (`sheath adopt`) |
//! | stray | something in a target of ours that nobody wished for |
//! | quarantine | a subject whose job hangs in the kernel: named, left alone, taken up again when it comes back |
//! | lane | a thread that carries jobs out |
//! | moment | a point of a boot that is timed: seen, DHCP, script, choice, … |
//! | hand-over | the seconds in which a blade has two sessions: iPXE's, and its operating system's |
//! | refusal | a login that LIO refused, with its cause |
//! | work | one use of the workshop on an image: a clone, a guest, an answer |

pub mod apply;
pub mod boot;
pub mod bootd;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod error;
pub mod host;
pub mod image;
pub mod model;
pub mod observed;
pub mod plan;
pub mod policy;
pub mod roster;
#[cfg(test)]
mod sample;
pub mod status;
pub mod watch;

/// The LIO layer by itself, for whoever wants that and nothing else of the agent: see its own page.
pub use host::lio;
