//! The kinds and their names. Owns every spelling that a document, a path of
//! the admin API or a command line may use.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A kind of object that this version enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Inventory: a name with virtual addresses and ports.
    Service,
    /// Inventory: a pod.
    Workload,
    /// Rule: which requests go where.
    RouteRule,
    /// Rule: which external destinations are open.
    EgressRule,
    /// Rule: the defaults.
    MeshConfig,
}

/// No kind has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownKind {
    /// Part of the design, but of a later version.
    #[error("DestinationPolicy comes with a later version: this one does not enforce it")]
    Later,
    /// A name that means nothing here.
    #[error(
        "unknown kind `{0}`: expected one of service (svc), workload (wl), routerule (rr), egressrule (er), meshconfig (mc)"
    )]
    Unknown(String),
}

impl Kind {
    /// Every kind, inventory first: an order in which objects can be applied.
    pub const ALL: [Self; 5] = [
        Self::Service,
        Self::Workload,
        Self::RouteRule,
        Self::EgressRule,
        Self::MeshConfig,
    ];

    /// As documents write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Workload => "Workload",
            Self::RouteRule => "RouteRule",
            Self::EgressRule => "EgressRule",
            Self::MeshConfig => "MeshConfig",
        }
    }

    /// As command lines and API paths write it.
    pub const fn singular(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Workload => "workload",
            Self::RouteRule => "routerule",
            Self::EgressRule => "egressrule",
            Self::MeshConfig => "meshconfig",
        }
    }

    /// The plural of [`Self::singular`].
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::Workload => "workloads",
            Self::RouteRule => "routerules",
            Self::EgressRule => "egressrules",
            Self::MeshConfig => "meshconfigs",
        }
    }

    /// For those who type it often.
    pub const fn short(self) -> &'static str {
        match self {
            Self::Service => "svc",
            Self::Workload => "wl",
            Self::RouteRule => "rr",
            Self::EgressRule => "er",
            Self::MeshConfig => "mc",
        }
    }

    /// The `apiVersion` that canonical documents carry.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Service => "v1",
            _ => "weir.dev/v1",
        }
    }

    /// Whether it has generations, history and undo. The other kinds are
    /// inventory: present state with a revision of its own.
    pub const fn is_rule(self) -> bool {
        matches!(self, Self::RouteRule | Self::EgressRule | Self::MeshConfig)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let lower = text.to_ascii_lowercase();
        let names =
            |kind: &Self| [kind.singular(), kind.plural(), kind.short()].contains(&lower.as_str());
        if let Some(kind) = Self::ALL.into_iter().find(names) {
            return Ok(kind);
        }
        match lower.as_str() {
            "destinationpolicy" | "destinationpolicies" | "dp" => Err(UnknownKind::Later),
            _ => Err(UnknownKind::Unknown(text.chars().take(64).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_names_its_kind() {
        for kind in Kind::ALL {
            for text in [kind.as_str(), kind.singular(), kind.plural(), kind.short()] {
                assert_eq!(text.parse(), Ok(kind), "{text}");
                assert_eq!(text.to_uppercase().parse(), Ok(kind), "{text}");
            }
        }
    }

    #[test]
    fn a_kind_of_a_later_version_is_refused_as_such() {
        for text in ["DestinationPolicy", "destinationpolicies", "dp"] {
            assert_eq!(text.parse::<Kind>(), Err(UnknownKind::Later));
        }
        assert_eq!(
            "pod".parse::<Kind>(),
            Err(UnknownKind::Unknown("pod".into()))
        );
    }

    #[test]
    fn rules_have_generations_and_inventory_has_not() {
        let rules: Vec<_> = Kind::ALL
            .into_iter()
            .filter(|kind| kind.is_rule())
            .collect();
        assert_eq!(rules, [Kind::RouteRule, Kind::EgressRule, Kind::MeshConfig]);
    }
}
