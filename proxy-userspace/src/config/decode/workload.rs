//! `Workload`.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use super::super::name::{address, is_subdomain};
use super::super::object::{LocalPod, Workload};
use super::metadata::Metadata;
use super::service::ipv4;
use super::{At, Fields};

/// Addresses of one Workload.
const ADDRESSES_MAX: usize = 16;

pub(super) fn workload(at: &At<'_>, metadata: Metadata) -> Option<Workload> {
    let mut fields = at.fields()?;
    let addresses = match fields.optional("addresses") {
        None => Some(Vec::new()),
        Some(at) => addresses(&at),
    };
    let ready = fields
        .optional("ready")
        .map_or(Some(true), |at| at.boolean());
    let network = match fields.optional("network") {
        None => Some(String::new()),
        Some(at) => network(&at),
    };
    let node = match fields.optional("node") {
        None => Some(None),
        Some(at) => at.text("a node's name", |text| {
            is_subdomain(text).then(|| Some(text.to_owned()))
        }),
    };
    let local = local(&mut fields);
    if addresses.as_ref().is_some_and(Vec::is_empty) && matches!(local, Some(None)) {
        fields
            .at
            .wrong::<()>("addresses, or netns and cgroup of a workload of this node");
        return None;
    }
    fields.finish();
    Some(Workload {
        name: metadata.name,
        labels: metadata.labels,
        addresses: addresses?,
        ready: ready?,
        network: network?,
        node: node?,
        local: local?,
    })
}

/// The IPv4 ones: pods have IPv6 addresses that nobody asked for.
fn addresses(at: &At<'_>) -> Option<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut whole = true;
    for at in at.items(ADDRESSES_MAX)? {
        match at.text("an IP address", address) {
            None => whole = false,
            Some(IpAddr::V6(_)) => {
                at.warn("IPv6 is not governed in this version: address left out")
            }
            Some(address) if addresses.contains(&address) => {
                at.wrong::<()>("each address once");
                whole = false;
            }
            Some(address) => match ipv4(&at, address) {
                Some(address) => addresses.push(address.into()),
                None => whole = false,
            },
        }
    }
    whole.then_some(addresses)
}

/// `spec.network`: any word; addresses mean something only within one.
pub(super) fn network(at: &At<'_>) -> Option<String> {
    let expected = "a name of lower-case letters, digits, `-` and `.`, or an empty string";
    at.text(expected, |text| {
        (text.is_empty() || is_subdomain(text)).then(|| text.to_owned())
    })
}

/// `netns`, `cgroup` and `enrolled`, which only a workload of this node has.
fn local(fields: &mut Fields<'_>) -> Option<Option<LocalPod>> {
    let netns = fields.optional("netns");
    let cgroup = fields.optional("cgroup");
    let enrolled = fields.optional("enrolled");
    match (netns, cgroup) {
        (None, None) => match enrolled {
            None => Some(None),
            Some(at) => at.wrong("no `enrolled` without netns and cgroup: only a workload of this node can be enrolled"),
        },
        (Some(netns), Some(cgroup)) => {
            let (netns, cgroup) = (path(&netns), path(&cgroup));
            let enrolled = enrolled.map_or(Some(true), |at| at.boolean());
            Some(Some(LocalPod { netns: netns?, cgroup: cgroup?, enrolled: enrolled? }))
        }
        (Some(at), None) => at.wrong("cgroup beside netns: a workload of this node needs both"),
        (None, Some(at)) => at.wrong("netns beside cgroup: a workload of this node needs both"),
    }
}

fn path(at: &At<'_>) -> Option<PathBuf> {
    at.text("an absolute path without `..`", |text| {
        let path = Path::new(text);
        let plain = path
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        (path.is_absolute() && plain && text.len() < 4096 && !text.contains('\0'))
            .then(|| path.to_path_buf())
    })
}
