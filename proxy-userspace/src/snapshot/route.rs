//! Which endpoint gets a request or a connection.
//!
//! Must never lock or allocate: it runs once per request on every worker.

use std::sync::Arc;

use proxy_common::Addr;

use crate::balance::{Rotation, Taker};
use crate::config::object::{RequestField, SourceMatch, StringMatch, selects};

use super::{Endpoint, RuleView, ServiceView, Source, Subset, Turns};

/// What a rule may look at in a request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Method.
    pub method: &'a str,
    /// Path and query.
    pub uri: &'a str,
    /// The Host header.
    pub authority: &'a str,
    /// The other headers.
    pub headers: &'a hyper::HeaderMap,
}

/// A choice of endpoints, and where in them to begin.
#[derive(Clone, Copy, Debug)]
pub struct Pick<'a> {
    /// The rule that matched; `None`: no rule did.
    pub rule: Option<&'a RuleView>,
    /// The endpoints that its labels pick.
    pub subset: &'a Subset,
    /// Those of them that take turns.
    endpoints: &'a [Arc<Endpoint>],
    /// Whose turn it is; `None`: there is no ready endpoint.
    turn: Option<usize>,
}

impl<'a> Pick<'a> {
    fn of(rule: Option<&'a RuleView>, subset: &'a Subset, dialled: &Addr, taker: Taker) -> Self {
        let Turns { endpoints, places } = subset.turns(dialled);
        Self {
            rule,
            subset,
            endpoints,
            turn: Rotation::over(endpoints).map(|rotation| rotation.pick(places.of(taker))),
        }
    }

    /// The endpoint of the given attempt: 0 is the one whose turn it is, each
    /// further one its neighbour. `None`: every endpoint was tried, or there is none.
    pub fn endpoint(&self, attempt: usize) -> Option<&'a Arc<Endpoint>> {
        let endpoints = self.endpoints;
        let turn = self.turn?;
        (attempt < endpoints.len()).then(|| &endpoints[(turn + attempt) % endpoints.len()])
    }
}

impl ServiceView {
    /// Takes a turn for `request` of `source`, which dialled `dialled`; without a
    /// request (bytes), only rules that look at none match.
    pub fn pick(&self, source: &Source, request: Option<&Request<'_>>, dialled: &Addr) -> Pick<'_> {
        let taker = match request {
            Some(_) => Taker::Request,
            None => Taker::Connection,
        };
        match self.matching(source, request) {
            None => Pick::of(None, &self.all, dialled, taker),
            Some(rule) => {
                let share = rule.cycle.pick(rule.places.of(taker));
                Pick::of(Some(rule), &rule.subsets[share], dialled, taker)
            }
        }
    }

    /// The rule that holds, without taking a turn.
    pub fn matching(&self, source: &Source, request: Option<&Request<'_>>) -> Option<&RuleView> {
        self.rules.iter().find(|rule| rule.matches(source, request))
    }
}

impl RuleView {
    fn matches(&self, source: &Source, request: Option<&Request<'_>>) -> bool {
        if !self
            .source
            .as_ref()
            .is_none_or(|wanted| from(wanted, source))
        {
            return false;
        }
        match request {
            None => self.request.is_empty(),
            Some(request) => self
                .request
                .iter()
                .all(|(field, value)| looks(field, value, request)),
        }
    }
}

fn from(wanted: &SourceMatch, source: &Source) -> bool {
    wanted
        .service
        .as_ref()
        .is_none_or(|service| source.services.contains(service))
        && selects(&wanted.labels, &source.labels)
}

fn looks(field: &RequestField, wanted: &StringMatch, request: &Request<'_>) -> bool {
    match field {
        RequestField::Uri => holds(wanted, request.uri),
        RequestField::Method => holds(wanted, request.method),
        RequestField::Authority => holds(wanted, request.authority),
        RequestField::Scheme => holds(wanted, "http"),
        // A header that is no text matches nothing; of several one is enough.
        RequestField::Header(name) => {
            let mut values = request.headers.get_all(name).iter();
            values.any(|value| value.to_str().is_ok_and(|value| holds(wanted, value)))
        }
    }
}

fn holds(wanted: &StringMatch, value: &str) -> bool {
    match wanted {
        StringMatch::Exact(exact) => value == exact,
        StringMatch::Prefix(prefix) => value.starts_with(prefix.as_str()),
        StringMatch::Regex(regex) => regex.is_match(value),
    }
}
