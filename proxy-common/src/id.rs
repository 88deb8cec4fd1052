//! Names for the numbers that cross the kernel boundary.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(pub $inner);
    };
}

id!(
    /// The kernel's cookie of a network namespace (`SO_NETNS_COOKIE`, Linux 5.14):
    /// never reused while the machine is up.
    NetnsCookie(u64)
);
id!(
    /// A workload, numbered by the daemon; never 0.
    WorkloadId(u32)
);
id!(
    /// One port of one service, numbered by the daemon; never 0. 0 in a flow: no service.
    ServiceId(u32)
);
id!(
    /// A rule that can give a verdict, numbered by the daemon; 0: no rule, the default spoke.
    RuleId(u32)
);
id!(
    /// `spec.network`: addresses mean something only within one.
    NetworkId(u32)
);
id!(
    /// The set of egress rules that holds for a class of workloads.
    PolicySetId(u32)
);
id!(
    /// The ports that are open behind one egress prefix.
    PortTableId(u32)
);

id!(
    /// One writing of a block of endpoint slots, numbered by the daemon; never 0.
    BlockGeneration(u32)
);

impl BlockGeneration {
    /// That of no block: slots that were never written hold it.
    pub const NONE: Self = Self(0);
}

impl RuleId {
    /// No rule: the mesh's default gave the verdict.
    pub const NONE: Self = Self(0);
}

impl ServiceId {
    /// The flow goes to no service: it is external.
    pub const NONE: Self = Self(0);
}
