//! What each declared protocol is carried by.

use proxy_common::{Port, Transport};

use super::object::{AppProtocol, EgressProtocol, ServicePort};

impl AppProtocol {
    /// What it is carried by.
    pub const fn transport(self) -> Transport {
        match self {
            Self::Detect | Self::Http | Self::Tcp => Transport::Tcp,
            Self::Udp => Transport::Udp,
        }
    }

    /// Whether an endpoint is picked for it inside the kernel.
    pub const fn is_balanced(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}

impl ServicePort {
    /// What tells it from the other ports of a virtual address.
    pub const fn key(&self) -> (Port, Transport) {
        (self.port, self.protocol.transport())
    }
}

impl EgressProtocol {
    /// What it is carried by.
    pub const fn transport(self) -> Transport {
        match self {
            Self::Http | Self::Tcp => Transport::Tcp,
            Self::Udp => Transport::Udp,
        }
    }
}
