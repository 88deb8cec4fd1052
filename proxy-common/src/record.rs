//! Whether a key, a value or a report can be what some hook or daemon of this
//! version wrote.
//!
//! Every layout here is integers alone, so any bytes of the right number are
//! one; but not any is a sound one. The hooks cannot refuse what they read and
//! take the strictest meaning of a number that they do not know. The daemon can,
//! and does: what is refused here is told, and never used. Must never refuse
//! what a constructor of this crate makes.

use core::error::Error;
use core::fmt;

use crate::addr::Port;
use crate::balance::{Block, EndpointSlot, Route, RouteKey, Target};
use crate::decide::{Reason, Verdict};
use crate::egress::{EgressEntry, EgressKey, Lengths, PortEntry, PortKey};
use crate::ending::{Ending, Outcome};
use crate::flow::{Event, Flow};
use crate::id::{BlockGeneration, NetnsCookie, PolicySetId};
use crate::service::{ServiceEntry, ServiceKey};
use crate::table::{
    AddressEntry, AddressKey, LISTENERS_MAX, Listener, LocalEntry, LocalKey, Workload,
};
use crate::talk::Peer;
use crate::transport::Transport;

/// A number where this version never writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Impossible {
    /// Of which record.
    pub record: &'static str,
    /// Which member of it.
    pub member: &'static str,
    /// The number.
    pub value: u64,
}

impl fmt::Display for Impossible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            record,
            member,
            value,
        } = self;
        write!(f, "{member} of {record} is {value}, which is never written")
    }
}

impl Error for Impossible {}

/// What crosses the kernel boundary.
pub trait Record {
    /// What errors call it.
    const NAME: &'static str;

    /// Refuses what nobody wrote.
    ///
    /// # Errors
    /// The first member that is [`Impossible`].
    fn check(&self) -> Result<(), Impossible>;
}

/// The member must be what `holds` says.
fn must<T: Record>(holds: bool, member: &'static str, value: u64) -> Result<(), Impossible> {
    if holds {
        return Ok(());
    }
    Err(Impossible {
        record: T::NAME,
        member,
        value,
    })
}

/// Padding is 0 everywhere: map keys are compared with it.
fn padding<T: Record>(value: u64) -> Result<(), Impossible> {
    must::<T>(value == 0, "padding", value)
}

fn transport<T: Record>(number: u32) -> Result<(), Impossible> {
    let known = [Transport::Tcp, Transport::Udp];
    let is_known = known
        .iter()
        .any(|known| u32::from(known.number()) == number);
    must::<T>(is_known, "transport", number.into())
}

fn reason<T: Record>(number: u8) -> Result<(), Impossible> {
    let is_known = Reason::from_number(number).is_some();
    must::<T>(is_known, "reason", number.into())
}

macro_rules! any_is_sound {
    ($($record:ty = $name:literal),* $(,)?) => { $(
        impl Record for $record {
            const NAME: &'static str = $name;

            fn check(&self) -> Result<(), Impossible> {
                Ok(())
            }
        }
    )* };
}

any_is_sound! {
    NetnsCookie = "a namespace's cookie",
    LocalEntry = "a local address",
    LocalKey = "the key of a local address",
    AddressKey = "the key of an address",
    EgressEntry = "an egress prefix",
    PolicySetId = "the number of a policy set",
}

impl Record for Event {
    const NAME: &'static str = "an event";

    fn check(&self) -> Result<(), Impossible> {
        let told = [Verdict::Deny as u8, Verdict::Direct as u8];
        must::<Self>(told.contains(&self.verdict), "verdict", self.verdict.into())?;
        reason::<Self>(self.reason)?;
        transport::<Self>(self.transport)
    }
}

impl Record for Ending {
    const NAME: &'static str = "an ending";

    fn check(&self) -> Result<(), Impossible> {
        let number = self.outcome;
        let known = [Outcome::Closed, Outcome::Failed, Outcome::NoEndpoint];
        let is_known = known.iter().any(|known| known.number() == number);
        must::<Self>(is_known, "outcome", number.into())?;
        let wants_none = self.outcome() == Outcome::NoEndpoint;
        let Port(port) = self.endpoint_port;
        must::<Self>(wants_none == (port == 0), "endpoint's port", port.into())?;
        self.pad
            .iter()
            .try_for_each(|pad| padding::<Self>((*pad).into()))?;
        padding::<Self>(self.pad2.into())
    }
}

impl Record for Flow {
    const NAME: &'static str = "a flow";

    fn check(&self) -> Result<(), Impossible> {
        reason::<Self>(self.reason)?;
        padding::<Self>(self.pad.into())?;
        must::<Self>(self.workload.0 != 0, "workload", 0)
    }
}

impl Record for Listener {
    const NAME: &'static str = "a listener";

    fn check(&self) -> Result<(), Impossible> {
        padding::<Self>(self.pad.into())
    }
}

impl Record for Workload {
    const NAME: &'static str = "a workload";

    fn check(&self) -> Result<(), Impossible> {
        must::<Self>(self.id.0 != 0, "number", 0)?;
        let byte = |is_known, member, byte: u8| must::<Self>(is_known, member, byte.into());
        byte(
            self.egress_default <= 2,
            "egress default",
            self.egress_default,
        )?;
        byte(self.on_proxy_down <= 1, "onProxyDown", self.on_proxy_down)?;
        byte(self.accelerate <= 2, "acceleration", self.accelerate)?;
        self.pad
            .iter()
            .try_for_each(|pad| padding::<Self>((*pad).into()))?;
        let len = usize::from(self.listeners_len);
        let fits = len <= LISTENERS_MAX;
        must::<Self>(fits, "number of listeners", self.listeners_len.into())?;
        for (index, listener) in self.listeners.iter().enumerate() {
            listener.check()?;
            let Port(port) = listener.port;
            must::<Self>((index < len) == (port != 0), "listener's port", port.into())?;
        }
        Ok(())
    }
}

impl Record for AddressEntry {
    const NAME: &'static str = "an address";

    fn check(&self) -> Result<(), Impossible> {
        must::<Self>(matches!(self.kind, 1 | 2), "kind", self.kind.into())
    }
}

impl Record for ServiceKey {
    const NAME: &'static str = "the key of a service port";

    fn check(&self) -> Result<(), Impossible> {
        transport::<Self>(self.transport.into())
    }
}

impl Record for ServiceEntry {
    const NAME: &'static str = "a service port";

    fn check(&self) -> Result<(), Impossible> {
        must::<Self>((1..=3).contains(&self.action), "action", self.action.into())?;
        must::<Self>(self.service.0 != 0, "number", 0)?;
        self.route.check()
    }
}

impl Record for RouteKey {
    const NAME: &'static str = "the key of a route";

    fn check(&self) -> Result<(), Impossible> {
        must::<Self>(self.v6 <= 1, "family", self.v6.into())
    }
}

impl Record for Route {
    const NAME: &'static str = "a route";

    fn check(&self) -> Result<(), Impossible> {
        self.block.check()
    }
}

impl Record for Block {
    const NAME: &'static str = "a block of endpoints";

    fn check(&self) -> Result<(), Impossible> {
        if self.len == 0 {
            return Ok(());
        }
        let is_named = self.generation != BlockGeneration::NONE;
        must::<Self>(is_named, "generation", 0)?;
        must::<Self>(self.scale != 0, "scale", 0)?;
        let ends = self.offset.checked_add(self.len).is_some();
        must::<Self>(ends, "length", self.len.into())
    }
}

impl Record for Target {
    const NAME: &'static str = "an endpoint";

    fn check(&self) -> Result<(), Impossible> {
        padding::<Self>(self.pad.into())
    }
}

impl Record for EndpointSlot {
    const NAME: &'static str = "a slot of endpoints";

    fn check(&self) -> Result<(), Impossible> {
        self.first.check()?;
        self.second.check()
    }
}

impl Record for EgressKey {
    const NAME: &'static str = "the key of an egress prefix";

    fn check(&self) -> Result<(), Impossible> {
        must::<Self>(self.bits <= 128, "length", self.bits.into())?;
        // Else no look-up would ever find it.
        let is_first = self.addr.prefix(self.bits) == self.addr;
        must::<Self>(is_first, "address behind the prefix", self.bits.into())
    }
}

impl Record for Lengths {
    const NAME: &'static str = "the lengths of a policy set's prefixes";

    fn check(&self) -> Result<(), Impossible> {
        must::<Self>(self.is_sound(), "order", 0)
    }
}

impl Record for PortKey {
    const NAME: &'static str = "the key of an egress port";

    fn check(&self) -> Result<(), Impossible> {
        transport::<Self>(self.transport.into())
    }
}

impl Record for PortEntry {
    const NAME: &'static str = "an egress port";

    fn check(&self) -> Result<(), Impossible> {
        must::<Self>((1..=4).contains(&self.action), "action", self.action.into())
    }
}

impl Record for Peer {
    const NAME: &'static str = "the peer of a UDP socket";

    fn check(&self) -> Result<(), Impossible> {
        self.dialled.check()?;
        self.endpoint.check()?;
        must::<Self>(self.endpoint.port.0 != 0, "endpoint's port", 0)
    }
}
