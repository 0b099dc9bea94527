//! The words of `forbid`.

use schemars::JsonSchema;
use serde::Deserialize;

macro_rules! words {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal,)+) => {
        /// What guards may forbid.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
        pub enum Forbid {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $name,)+
        }

        impl Forbid {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word in the policy.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

// One line each; the comment is what an editor shows.
words! {
    /// Devices of the host passed through: PCI, USB, SCSI, mediated ones.
    HostDev = "hostdev",
    /// Arguments, environment and capabilities of QEMU's own.
    QemuNamespace = "qemu-namespace",
    /// Namespaces of LXC's own that are shared with the host or other containers.
    LxcNamespace = "lxc-namespace",
    /// Arguments of Xen's own.
    XenNamespace = "xen-namespace",
    /// Arguments of bhyve's own.
    BhyveNamespace = "bhyve-namespace",
    /// Options of dnsmasq's own, for networks.
    DnsmasqNamespace = "dnsmasq-namespace",
    /// Options of pools for `mount` and for RBD.
    MountOptions = "mount-options",
    /// Security labels other than those that libvirt chooses, or none.
    SeclabelOverride = "seclabel-override",
    /// Commands to QEMU's monitor, but those of `monitor_commands`.
    MonitorCommand = "monitor-command",
    /// Commands to the guest's agent, but those of `agent_commands`.
    AgentCommand = "agent-command",
    /// Folders of the host shown to guests.
    Filesystem = "filesystem",
    /// Consoles, channels and other character devices on files, devices or sockets of the host.
    CharDevicePath = "char-device-path",
    /// A program of one's own choice as the emulator.
    Emulator = "emulator",
    /// Firmware of one's own choice.
    Loader = "loader",
    /// Kernel, initial RAM disk or device tree from the host.
    KernelPath = "kernel-path",
    /// Disks that the host gets over the network.
    NetworkDisk = "network-disk",
    /// Memory backed by files of the host.
    MemoryBackingPath = "memory-backing-path",
    /// Block devices of the host as disks.
    BlockDevice = "block-device",
    /// The host's TPM passed through.
    TpmPassthrough = "tpm-passthrough",
    /// Random numbers from a device or socket of the host.
    RngDevicePath = "rng-device-path",
    /// Keyboards and other input devices of the host passed through.
    InputPassthrough = "input-passthrough",
    /// Memory shared between guests.
    Shmem = "shmem",
    /// Sockets between guest and host.
    Vsock = "vsock",
    /// Consoles, channels and other character devices on the host's network.
    CharDeviceNetwork = "char-device-network",
    /// Disks whose backing files are taken from what the image says: a guest can write that.
    ImageChain = "image-chain",
    /// Secrets of the host, for disks and TPMs.
    Secret = "secret",
    /// Devices that another domain serves, on Xen.
    DriverDomain = "driver-domain",
}

/// A set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ForbidSet(u64);

impl ForbidSet {
    /// Every one, those of later versions too.
    pub const ALL: Self = Self(u64::MAX);

    /// Whether `word` is in it.
    #[must_use]
    pub fn contains(self, word: Forbid) -> bool {
        self.0 >> word as u64 & 1 == 1
    }
}

impl FromIterator<Forbid> for ForbidSet {
    fn from_iter<I: IntoIterator<Item = Forbid>>(words: I) -> Self {
        Self(
            words
                .into_iter()
                .fold(0, |set, word| set | 1 << word as u64),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words are in the manual, and no others.
    #[test]
    fn the_manual_has_every_word() {
        let manual = include_str!("../../../docs/guards.md");
        let (_, table) = manual
            .split_once("## Words of `forbid`")
            .unwrap_or_default();
        let (table, _) = table.split_once("\n## ").unwrap_or_default();
        let rows = table
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once(" | "));
        let mut told: Vec<_> = rows
            .flat_map(|(words, _)| words.split(", "))
            .map(|word| word.trim_matches('`'))
            .collect();
        let mut words: Vec<_> = Forbid::ALL.iter().map(|word| word.word()).collect();
        told.sort_unstable();
        words.sort_unstable();
        assert_eq!(told, words);
    }
}
