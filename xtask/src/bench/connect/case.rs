//! What is dialled, from where, and what the configuration grows by.

use clap::ValueEnum;

/// A connect that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Case {
    /// On a node without weir.
    NoMesh,
    /// The same over IPv6.
    NoMesh6,
    /// By a pod that weir does not know.
    Unenrolled,
    /// To an external address that an egress rule opens.
    Direct,
    /// The same over IPv6.
    Direct6,
    /// To a port of that address that none opens.
    Deny,
    /// To a service that the hook balances.
    Balance,
    /// The same over IPv6.
    Balance6,
    /// To a service that the proxy looks at.
    Proxy,
    /// Without weir, past a chain of as many iptables rules.
    Iptables,
    /// Without weir, past one rule on an nftables set of that size.
    Nftables,
}

impl Case {
    /// Those that weir's hook runs for.
    pub(super) const OF_WEIR: [Self; 7] = [
        Self::Unenrolled,
        Self::Direct,
        Self::Direct6,
        Self::Deny,
        Self::Balance,
        Self::Balance6,
        Self::Proxy,
    ];

    /// Whether an IPv6 address is dialled.
    pub(super) const fn is_v6(self) -> bool {
        matches!(self, Self::NoMesh6 | Self::Direct6 | Self::Balance6)
    }

    /// What its whole call is compared with.
    pub(super) const fn without_weir(self) -> Self {
        if self.is_v6() {
            Self::NoMesh6
        } else {
            Self::NoMesh
        }
    }

    /// Its name in tables and plots.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::NoMesh => "no mesh",
            Self::NoMesh6 => "no mesh, IPv6",
            Self::Unenrolled => "not enrolled",
            Self::Direct => "Direct",
            Self::Direct6 => "Direct, IPv6",
            Self::Deny => "Deny",
            Self::Balance => "Balance",
            Self::Balance6 => "Balance, IPv6",
            Self::Proxy => "Proxy",
            Self::Iptables => "iptables rules",
            Self::Nftables => "nftables set",
        }
    }

    /// Its name in JSON.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::NoMesh => "noMesh",
            Self::NoMesh6 => "noMesh6",
            Self::Unenrolled => "unenrolled",
            Self::Direct => "direct",
            Self::Direct6 => "direct6",
            Self::Deny => "deny",
            Self::Balance => "balance",
            Self::Balance6 => "balance6",
            Self::Proxy => "proxy",
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

/// What there is more and more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Axis {
    /// Egress rules, each on a CIDR of its own; as many of each family.
    Rules,
    /// Services, each with ten endpoints.
    Services,
    /// Enrolled workloads.
    Workloads,
}

impl Axis {
    /// Every axis.
    pub(super) const ALL: [Self; 3] = [Self::Rules, Self::Services, Self::Workloads];

    /// Its name in tables, plots and JSON.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Services => "services",
            Self::Workloads => "workloads",
        }
    }

    /// How many there are, step by step.
    pub(super) const fn sizes(self, quick: bool) -> &'static [u32] {
        match (self, quick) {
            (Self::Rules, false) => &[1, 10, 100, 1_000, 10_000, 100_000],
            (Self::Rules | Self::Services, true) => &[1, 1_000],
            (Self::Services, false) => &[1, 10, 100, 1_000, 10_000],
            (Self::Workloads, false) => &[1, 10, 100, 500],
            (Self::Workloads, true) => &[1, 20],
        }
    }
}
