//! `weir enroll` and `weir unenroll`: a Workload without a file.
//!
//! Must never write what is in force: it asks the daemon to.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hyper::Method;
use serde_json::{Value, json};

use super::args::{EnrollArgs, UnenrollArgs};
use super::client::{Body, ClientError, Query};
use super::run_args::Accelerate;
use super::write::{change, object_path, write_options};
use super::{Failure, Session};
use crate::admin::wire::{Closed, Receipt};
use crate::config::{Kind, ObjectName};
use crate::socket::{AddrState, Netns};

/// `weir enroll`: changes the Workload, or writes it if there is none.
pub(super) fn enroll(session: &mut Session<'_>, args: EnrollArgs) -> Result<(), Failure> {
    let netns = absolute(&args.netns)?;
    let cgroup = absolute(&args.cgroup)?;
    let addresses = if args.addresses.is_empty() {
        addresses_in(&netns)?
    } else {
        args.addresses
    };
    let labels: serde_json::Map<String, Value> = args
        .labels
        .into_iter()
        .map(|label| (label.key, label.value.into()))
        .collect();
    let name = ObjectName::new(&args.namespace, &args.name);
    let accelerate = args.accelerate.map(|Accelerate(mode)| mode.name());
    let mut document = json!({
        "apiVersion": Kind::Workload.api_version(),
        "kind": Kind::Workload.as_str(),
        "metadata": { "name": name.name(), "namespace": name.namespace(), "labels": labels },
        "spec": {
            "addresses": addresses,
            "netns": netns,
            "cgroup": cgroup,
            "enrolled": true,
        },
    });
    if let Some(accelerate) = accelerate {
        document["spec"]["accelerate"] = accelerate.into();
    }
    let send = |method: Method, media_type| {
        let query = write_options(object_path(Kind::Workload, &name), &args.write);
        let body = Body {
            media_type,
            bytes: document.to_string().into_bytes(),
        };
        session.client.send::<Receipt>(method, query, Some(body))
    };
    let receipt = match send(Method::PATCH, "application/merge-patch+json") {
        Err(ClientError::Refused(problem)) if problem.status == 404 => {
            send(Method::PUT, "application/json")?
        }
        other => other?,
    };
    session.print.receipt(&receipt, args.write.output)?;
    if args.reset_existing && !receipt.dry_run {
        let path = format!("/v1/workloads/{}/{}/older", name.namespace(), name.name());
        let closed: Closed = session
            .client
            .send(Method::DELETE, Query::new(path), None)?;
        let line = format!("closed {} connections older than that", closed.closed);
        session.print.note(&line);
    }
    Ok(())
}

/// `weir unenroll`.
pub(super) fn unenroll(session: &mut Session<'_>, args: &UnenrollArgs) -> Result<(), Failure> {
    let name = ObjectName::new(&args.namespace, &args.name);
    let query = write_options(object_path(Kind::Workload, &name), &args.write);
    let patch = json!({ "spec": { "enrolled": false } });
    let body = Body {
        media_type: "application/merge-patch+json",
        bytes: patch.to_string().into_bytes(),
    };
    change(session, Method::PATCH, query, Some(body), args.write.output)
}

/// The daemon runs elsewhere: a relative path would mean another file there.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::Unasked(format!("{}: {error}", path.display())))
}

/// The addresses that others can dial, of the network namespace at `netns`.
fn addresses_in(netns: &Path) -> Result<Vec<IpAddr>, Failure> {
    let failed = |what: String| {
        Failure::Unasked(format!(
            "{}: {what}; give the pod's addresses with --address",
            netns.display()
        ))
    };
    let look = || Netns::open(netns)?.look(&Netns::current()?);
    let view = look().map_err(|error| failed(error.to_string()))?;
    let mut found: Vec<IpAddr> = view
        .addrs
        .iter()
        .filter(|addr| stays(addr.state))
        .map(|addr| addr.ip)
        .collect();
    found.retain(is_dialled);
    found.sort();
    found.dedup();
    if found.is_empty() {
        return Err(failed("no address but loopback in there".to_owned()));
    }
    Ok(found)
}

/// Whether it will still be there when weir looks again: a temporary address is
/// replaced by others.
fn stays(state: AddrState) -> bool {
    matches!(state, AddrState::Stable | AddrState::Tentative)
}

/// Not loopback, not link-local: those mean another machine to everybody.
fn is_dialled(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_others_dial_are_written() {
        for (ip, dialled) in [
            ("10.1.2.3", true),
            ("127.0.0.1", false),
            ("169.254.7.7", false),
            ("fd00::1", true),
            ("::1", false),
            ("fe80::1", false),
        ] {
            assert_eq!(is_dialled(&ip.parse().unwrap()), dialled, "{ip}");
        }
    }

    #[test]
    fn a_missing_netns_is_said_with_the_way_out() {
        let error = addresses_in(Path::new("/run/netns/weir-absent"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("No such file") && error.contains("--address"),
            "{error}"
        );
    }
}
