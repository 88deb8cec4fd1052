//! The mesh-wide settings of one namespace.
//!
//! Owns which of several `MeshConfig`s gives a setting, and its default where
//! none does.

use std::sync::Arc;
use std::time::Duration;

use proxy_common::{EgressDefault, OnProxyDown};

use crate::config::Objects;
use crate::config::object::MeshConfig;

/// Time to send a request head, unless a `MeshConfig` says otherwise.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The mesh-wide settings that hold in one namespace.
pub(super) struct Mesh {
    pub(super) egress: EgressDefault,
    pub(super) on_proxy_down: OnProxyDown,
    pub(super) access_log: bool,
    pub(super) header_timeout: Duration,
}

impl Mesh {
    pub(super) fn of(objects: &Objects, namespace: &str) -> Self {
        let named = |name: &str| {
            objects
                .mesh_configs
                .values()
                .find(|mesh| mesh.name.name() == name)
        };
        let own = named(namespace).filter(|_| namespace != "default");
        let layers = [own, named("default")];
        Self {
            egress: first(&layers, |mesh| mesh.egress).unwrap_or_default(),
            on_proxy_down: first(&layers, |mesh| mesh.on_proxy_down).unwrap_or_default(),
            access_log: first(&layers, |mesh| mesh.access_log).unwrap_or(true),
            header_timeout: first(&layers, |mesh| mesh.header_timeout).unwrap_or(HEADER_TIMEOUT),
        }
    }
}

/// The first layer's value that is set.
fn first<T>(
    layers: &[Option<&Arc<MeshConfig>>],
    field: impl Fn(&MeshConfig) -> Option<T>,
) -> Option<T> {
    layers.iter().flatten().find_map(|mesh| field(mesh))
}
