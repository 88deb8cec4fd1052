//! One dial: what `weir explain` said of it, and what the node then has to tell.
//!
//! Owns which outcome, endpoint, rule and line an explanation allows. Must never
//! take one verdict for another.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use serde_json::Value;

/// The hook's own count of TCP connects.
pub const TCP: &str = "weir_kernel_connects_total";
/// Its count of UDP connects and addressed datagrams.
pub const UDP: &str = "weir_kernel_udp_total";
/// What was denied.
pub const DENIALS: &str = "weir_denials_total";
/// What was let through only because the mesh audits.
pub const AUDITS: &str = "weir_egress_audited_total";

const BY_NAME: &str = "egress-by-name";
const HOST_DENIED: &str = "egress-host-denied";

/// The request by which the proxy shows that it was reached.
pub fn ask(path: &str) -> String {
    format!("GET {path} HTTP/1.0\r\nHost: weir.test\r\n\r\n")
}

/// A denial or audit: metric, source, destination, reason, rule.
pub type Refusal = [String; 5];

/// One dial, and what `weir explain` said of it.
pub struct Dialled {
    /// The explanation, as JSON.
    pub said: Value,
    /// `namespace/name` of who dialled.
    pub workload: String,
    /// What was dialled.
    pub to: SocketAddr,
    /// Whether over UDP.
    pub is_udp: bool,
    /// Of a balanced one: the endpoint that answered.
    pub answered: Option<String>,
    /// How the hook counted it.
    pub outcome: &'static str,
}

impl Dialled {
    fn text(&self, name: &str) -> &str {
        self.said[name].as_str().unwrap_or_default()
    }

    /// As denials name it and `weir explain` takes it.
    pub fn destination(&self) -> String {
        let to = SocketAddr::new(self.to.ip().to_canonical(), self.to.port());
        format!("{to}{}", if self.is_udp { "/udp" } else { "" })
    }

    /// The metric that counts it.
    pub fn family(&self) -> &'static str {
        if self.is_udp { UDP } else { TCP }
    }

    fn listed(&self) -> impl Iterator<Item = &Value> {
        self.said["endpoints"].as_array().into_iter().flatten()
    }

    /// Whether `weir explain` lists this endpoint with a share.
    fn lists(&self, endpoint: &str) -> bool {
        let has = |one: &Value| one["address"] == endpoint && one["share"].as_f64() > Some(0.0);
        self.listed().any(has)
    }

    /// Whether a share, or all of it, has no endpoint.
    fn has_gap(&self) -> bool {
        let shares = self.listed().filter_map(|one| one["share"].as_f64());
        shares.sum::<f64>() < 99.9
    }

    /// The outcome has to be one that the verdict allows.
    pub fn hold_outcome(&self) -> Result<()> {
        let outcome = self.outcome;
        let allowed = match self.text("verdict") {
            "direct" => outcome == "direct",
            "deny" => outcome == "denied",
            "proxy" => outcome == "proxied",
            "balance" => outcome == "balanced" || outcome == "no_endpoint" && self.has_gap(),
            _ => false,
        };
        ensure!(allowed, "it was {outcome}");
        let answered = self.answered.as_deref();
        ensure!(
            answered.is_none_or(|one| self.lists(one)),
            "{answered:?} answered"
        );
        Ok(())
    }

    /// What has to be told of it, as a refusal or what nearly was one. The request of
    /// [`ask`] names a host that no rule opens.
    pub fn refusal(&self) -> Option<Refusal> {
        let (reason, rule) = (self.text("reason"), self.text("rule"));
        let (metric, reason, rule) = match (self.text("verdict"), reason) {
            ("deny", _) => (DENIALS, reason, rule),
            (_, "egress-audit") => (AUDITS, reason, rule),
            (_, BY_NAME) => (DENIALS, HOST_DENIED, ""),
            _ => return None,
        };
        let destination = self.destination();
        Some([metric, &self.workload, &destination, reason, rule].map(str::to_owned))
    }

    /// Whether the access log has to have a line of it as a balanced connection: of
    /// UDP only those that nobody was there for are told.
    pub fn has_ending(&self) -> bool {
        self.outcome == "no_endpoint" || self.outcome == "balanced" && !self.is_udp
    }

    /// The line of a balanced connection: its rule is the one that was explained, and
    /// its endpoint one of those.
    pub fn hold_ending(&self, line: &Value) -> Result<()> {
        self.hold_names(line, "service", "routeRule")?;
        let endpoint = line["endpoint"].as_str();
        let reason = match (self.outcome, &self.answered) {
            ("no_endpoint", _) => "no-endpoint",
            (_, None) => "upstream-connect-failed",
            (_, Some(_)) => "",
        };
        ensure!(
            line["reason"].as_str().unwrap_or_default() == reason,
            "not {reason:?}"
        );
        match endpoint {
            None => ensure!(self.outcome == "no_endpoint", "an endpoint was drawn"),
            Some(endpoint) => ensure!(self.lists(endpoint), "not among the endpoints"),
        }
        ensure!(
            self.answered.is_none() || self.answered.as_deref() == endpoint,
            "{:?} answered",
            self.answered
        );
        Ok(())
    }

    /// The line of the request that the proxy got.
    pub fn hold_request(&self, line: &Value) -> Result<()> {
        if self.text("reason") == BY_NAME {
            ensure!(line["reason"] == HOST_DENIED, "not {HOST_DENIED}");
            return Ok(());
        }
        if self.said["service"].is_null() {
            return self.hold_names(line, "rule", "rule");
        }
        self.hold_names(line, "service", "routeRule")?;
        match line["endpoint"].as_str() {
            None => ensure!(self.has_gap(), "no endpoint was asked"),
            Some(endpoint) => ensure!(self.lists(endpoint), "not among the endpoints"),
        }
        Ok(())
    }

    fn hold_names(&self, line: &Value, destination: &str, rule: &str) -> Result<()> {
        let told = |name: &str| line[name].as_str().unwrap_or_default();
        ensure!(told("workload") == self.workload, "another workload");
        ensure!(
            told("destination") == self.text(destination),
            "another destination"
        );
        ensure!(told("rule") == self.text(rule), "another rule");
        Ok(())
    }
}
