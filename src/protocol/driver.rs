//! Drivers that have daemons of their own beside the hypervisor's.

/// A secondary driver. What belongs to none of them is the hypervisor's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Driver {
    /// Networks and their ports: `virtnetworkd`.
    Network,
    /// Storage pools and volumes: `virtstoraged`.
    Storage,
    /// Devices of the host: `virtnodedevd`.
    Nodedev,
    /// Network filters and their bindings: `virtnwfilterd`.
    Nwfilter,
    /// Secrets: `virtsecretd`.
    Secret,
    /// Interfaces of the host: `virtinterfaced`.
    Interface,
}

impl Driver {
    /// All of them, in order of [`place`](Self::place).
    pub const ALL: [Self; 6] = [
        Self::Network,
        Self::Storage,
        Self::Nodedev,
        Self::Nwfilter,
        Self::Secret,
        Self::Interface,
    ];

    /// Its place in [`ALL`](Self::ALL).
    #[must_use]
    pub fn place(self) -> usize {
        self as usize
    }

    /// The scheme of its URI, which is its name in a policy too.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Storage => "storage",
            Self::Nodedev => "nodedev",
            Self::Nwfilter => "nwfilter",
            Self::Secret => "secret",
            Self::Interface => "interface",
        }
    }
}
