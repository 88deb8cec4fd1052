//! `MeshConfig`.

use std::time::Duration;

use proxy_common::{EgressDefault, OnProxyDown};

use super::metadata::Metadata;
use super::{At, LATER, Read};
use crate::config::name::duration;
use crate::config::object::MeshConfig;

/// What `headerTimeout` may be: less would refuse honest clients, more would
/// let a slow one hold its place for good.
const HEADER_TIMEOUT_MS: std::ops::RangeInclusive<u128> = 1..=3_600_000;

const EGRESS: &[(&str, EgressDefault)] = &[
    ("deny", EgressDefault::Deny),
    ("allow", EgressDefault::Allow),
    ("audit", EgressDefault::Audit),
];

const ON_PROXY_DOWN: &[(&str, OnProxyDown)] =
    &[("closed", OnProxyDown::Closed), ("open", OnProxyDown::Open)];

pub(super) fn mesh_config(at: &At<'_>, metadata: Metadata) -> Read<MeshConfig> {
    let Metadata { name, labels, .. } = metadata;
    let mut fields = at.fields()?;
    let egress = fields.optional("egress", |at| at.word(EGRESS));
    let on_proxy_down = fields.optional("onProxyDown", |at| at.word(ON_PROXY_DOWN));
    let access_log = fields.optional("accessLog", At::boolean);
    let header_timeout = fields.optional("headerTimeout", header_timeout);
    fields.refuse("tracing", LATER);
    fields.finish();
    Ok(MeshConfig {
        name,
        labels,
        egress: egress?,
        on_proxy_down: on_proxy_down?,
        access_log: access_log?,
        header_timeout: header_timeout?,
    })
}

fn header_timeout(at: &At<'_>) -> Read<Duration> {
    at.text("a duration from 1ms to 1h, e.g. `10s` or `500ms`", |text| {
        duration(text).filter(|duration| HEADER_TIMEOUT_MS.contains(&duration.as_millis()))
    })
}
