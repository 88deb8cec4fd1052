//! `Workload`.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use proxy_common::Acceleration;

use super::metadata::Metadata;
use super::service::{distinct, host_address};
use super::{At, Fields, Read};
use crate::config::name::is_subdomain;
use crate::config::object::{LocalPod, Workload};

/// Addresses of one Workload.
const ADDRESSES_MAX: usize = 16;

/// Words for `spec.accelerate`.
const ACCELERATE: &[(&str, Acceleration)] = &[
    ("auto", Acceleration::Auto),
    ("force", Acceleration::Force),
    ("off", Acceleration::Off),
];

pub(super) fn workload(at: &At<'_>, metadata: Metadata) -> Read<Workload> {
    let mut fields = at.fields()?;
    let addresses = fields.optional("addresses", addresses);
    let ready = fields.optional("ready", At::boolean);
    let network = fields.optional("network", network);
    let node = fields.optional("node", |at| {
        at.text("a node's name", |text| {
            is_subdomain(text).then(|| text.to_owned())
        })
    });
    let local = local(&mut fields);
    let accelerate = fields.optional("accelerate", |at| at.word(ACCELERATE));
    fields.finish();
    let (addresses, local) = (addresses?.unwrap_or_default(), local?);
    let accelerate = accelerate?;
    if accelerate.is_some() && local.is_none() {
        return at.wrong(
            "no `accelerate` without netns and cgroup: only a workload of this node is accelerated",
        );
    }
    if addresses.is_empty() && local.is_none() {
        return at.wrong("addresses, or netns and cgroup of a workload of this node");
    }
    Ok(Workload {
        name: metadata.name,
        labels: metadata.labels,
        addresses,
        ready: ready?.unwrap_or(true),
        network: network?.unwrap_or_default(),
        node: node?,
        local,
        accelerate,
    })
}

fn addresses(at: &At<'_>) -> Read<Vec<IpAddr>> {
    let addresses = at.items(ADDRESSES_MAX, host_address);
    Ok(distinct(at, addresses?.into_iter()))
}

/// `spec.network`: any word; addresses mean something only within one.
pub(super) fn network(at: &At<'_>) -> Read<String> {
    let expected = "a name of lower-case letters, digits, `-` and `.`, or an empty string";
    at.text(expected, |text| {
        (text.is_empty() || is_subdomain(text)).then(|| text.to_owned())
    })
}

/// `netns`, `cgroup` and `enrolled`, which only a workload of this node has.
fn local(fields: &mut Fields<'_>) -> Read<Option<LocalPod>> {
    let netns = fields.find("netns");
    let cgroup = fields.find("cgroup");
    let enrolled = fields.find("enrolled");
    match (netns, cgroup, enrolled) {
        (None, None, None) => Ok(None),
        (None, None, Some(at)) => at.wrong(
            "no `enrolled` without netns and cgroup: only a workload of this node can be enrolled",
        ),
        (Some(netns), Some(cgroup), enrolled) => {
            let (netns, cgroup) = (path(&netns), path(&cgroup));
            let enrolled = enrolled.map_or(Ok(true), |at| at.boolean());
            Ok(Some(LocalPod {
                netns: netns?,
                cgroup: cgroup?,
                enrolled: enrolled?,
            }))
        }
        (Some(at), None, _) => at.wrong("cgroup beside netns: a workload of this node needs both"),
        (None, Some(at), _) => at.wrong("netns beside cgroup: a workload of this node needs both"),
    }
}

fn path(at: &At<'_>) -> Read<PathBuf> {
    at.text("an absolute path without `..`", |text| {
        let path = Path::new(text);
        let plain = path
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        (path.is_absolute() && plain && text.len() < 4096 && !text.contains('\0'))
            .then(|| path.to_path_buf())
    })
}
