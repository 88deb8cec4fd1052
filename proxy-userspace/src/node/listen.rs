//! weir's listeners in a pod: on which of its addresses, and how they are opened.
//!
//! Must never listen on an address that means another machine to somebody
//! (loopback, link-local), or that another host may have.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use proxy_common::{Addr, LISTENERS_MAX, Listener, Port};

use super::pod::PodError;
use crate::config::object::ObjectName;
use crate::socket::{AddrState, LocalAddr, Netns, NetnsView};

/// How long the enrolments of one apply wait, together, for the kernel to find
/// out that IPv6 addresses are nobody else's; by default it takes between one
/// and two seconds.
pub(super) const SETTLE: Duration = Duration::from_secs(3);

/// Pause between two looks.
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// The namespace, once none of its addresses is tentative any more, or as it is
/// at `deadline`: those addresses then get no listener.
pub(super) fn settled(netns: &Netns, home: &Netns, deadline: Instant) -> io::Result<NetnsView> {
    loop {
        let view = netns.look(home)?;
        let unsettled = view
            .addrs
            .iter()
            .any(|addr| is_dialled_from(addr) && addr.state == AddrState::Tentative);
        if !unsettled || Instant::now() > deadline {
            return Ok(view);
        }
        std::thread::sleep(SETTLE_PAUSE);
    }
}

/// Where to listen: the claimed addresses first (they are the pod's face), those
/// that pass last, the families in turn, as many as the kernel's table has room for.
pub(super) fn addresses(found: &[LocalAddr], claimed: &[IpAddr]) -> Vec<LocalAddr> {
    let usable = |addr: &&LocalAddr| is_dialled_from(addr) && addr.state <= AddrState::Passing;
    let mut usable: Vec<LocalAddr> = found.iter().filter(usable).copied().collect();
    usable.sort_by_key(|addr| {
        let claim = claimed.iter().position(|claim| *claim == addr.ip);
        (claim.unwrap_or(usize::MAX), addr.state)
    });
    let (v4, v6): (Vec<_>, Vec<_>) = usable.into_iter().partition(|addr| addr.ip.is_ipv4());
    let mut on = Vec::new();
    let (mut v4, mut v6) = (v4.into_iter(), v6.into_iter());
    while on.len() < LISTENERS_MAX {
        let pair = [v4.next(), v6.next()];
        if pair == [None, None] {
            break;
        }
        on.extend(pair.into_iter().flatten());
    }
    on.truncate(LISTENERS_MAX);
    on
}

/// Whether others can be dialled from it by their addresses alone.
fn is_dialled_from(addr: &LocalAddr) -> bool {
    let link_local = matches!(addr.ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    !addr.loopback && !link_local
}

/// Where listeners are opened, and for whom.
pub(super) struct Place<'a> {
    pub(super) name: &'a ObjectName,
    pub(super) netns: &'a Netns,
    pub(super) home: &'a Netns,
    /// Index of its loopback interface.
    pub(super) loopback: u32,
}

impl Place<'_> {
    /// One listener per address, with one socket per worker.
    pub(super) fn listen(
        &self,
        on: &[LocalAddr],
        workers: usize,
    ) -> Result<(Vec<Listener>, Vec<Vec<TcpListener>>), PodError> {
        let mut sockets: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        let mut listeners = Vec::new();
        for addr in on {
            let bound = self.share(SocketAddr::new(addr.ip, 0), &mut sockets)?;
            listeners.push(Listener {
                addr: Addr::from(addr.ip),
                ifindex: addr.ifindex,
                port: Port(bound.port()),
                pad: 0,
            });
        }
        #[cfg(feature = "redirect")]
        if let Some(addr) = crate::proxy::redirect::address() {
            self.share(addr, &mut sockets)?;
        }
        Ok((listeners, sockets))
    }

    /// Opens `addr` once for each worker; the first socket settles the port.
    fn share(
        &self,
        addr: SocketAddr,
        sockets: &mut [Vec<TcpListener>],
    ) -> Result<SocketAddr, PodError> {
        let mut bound = addr;
        for worker in sockets {
            let error = |cause| PodError::Listen {
                name: self.name.clone(),
                addr: bound,
                cause,
            };
            let socket = self
                .netns
                .listen(self.home, bound, self.loopback)
                .map_err(error)?;
            bound = socket.local_addr().map_err(error)?;
            worker.push(socket);
        }
        Ok(bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(ip: &str, state: AddrState) -> LocalAddr {
        LocalAddr {
            ip: ip.parse().unwrap(),
            ifindex: 2,
            loopback: ip == "127.0.0.1" || ip == "::1",
            state,
        }
    }

    fn chosen(found: &[LocalAddr], claimed: &[&str]) -> Vec<String> {
        let claimed: Vec<IpAddr> = claimed.iter().map(|ip| ip.parse().unwrap()).collect();
        let chosen = addresses(found, &claimed);
        chosen.iter().map(|addr| addr.ip.to_string()).collect()
    }

    #[test]
    fn listeners_sit_on_what_others_can_dial_claimed_first() {
        let found = [
            local("127.0.0.1", AddrState::Stable),
            local("::1", AddrState::Stable),
            local("fe80::1", AddrState::Stable),
            local("fd00::9", AddrState::Passing),
            local("fd00::1", AddrState::Stable),
            local("fd00::2", AddrState::Tentative),
            local("fd00::3", AddrState::Duplicate),
            local("10.0.0.1", AddrState::Stable),
            local("10.0.0.2", AddrState::Stable),
        ];
        assert_eq!(
            chosen(&found, &["10.0.0.2"]),
            ["10.0.0.2", "fd00::1", "10.0.0.1", "fd00::9"]
        );
        assert_eq!(chosen(&found, &["fd00::9"])[1], "fd00::9");
        assert!(chosen(&found[..3], &[]).is_empty());
    }

    #[test]
    fn neither_family_crowds_the_other_out() {
        let mut found: Vec<LocalAddr> = (1..20)
            .map(|n| local(&format!("10.0.0.{n}"), AddrState::Stable))
            .collect();
        assert_eq!(chosen(&found, &[]).len(), LISTENERS_MAX);
        found.extend((1..20).map(|n| local(&format!("fd00::{n}"), AddrState::Stable)));
        let v6 = chosen(&found, &[]);
        let v6 = v6.iter().filter(|ip| ip.contains(':')).count();
        assert_eq!(v6, LISTENERS_MAX / 2);
    }
}
