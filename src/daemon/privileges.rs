//! Privileges: the few that the agent needs. `host::privileges` gives all others away, before a second thread starts.

use caps::Capability;

/// What is kept, by LVM as our child, too; `systemd/sheathd.service` names the same, each with the kernel's code that asks for
/// it.
pub(super) const KEPT: [Capability; 5] = [
    // device-mapper's ioctls, LIO's configfs checks
    Capability::CAP_SYS_ADMIN,
    // rtnetlink, SO_RCVBUFFORCE
    Capability::CAP_NET_ADMIN,
    // LVM raises its priority while devices are suspended
    Capability::CAP_SYS_NICE,
    // an image is imported from wherever the administrator has it
    Capability::CAP_DAC_READ_SEARCH,
    // the kernel log, where kernel.dmesg_restrict is set: why LIO refuses
    Capability::CAP_SYSLOG,
];
