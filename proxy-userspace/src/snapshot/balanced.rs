//! The kernel's entries of service ports, and the tables of those that it
//! balances itself.
//!
//! Owns how route rules become shares: one table for each class of sources that
//! the rules of a port tell apart. Must never give the share of labels that
//! nobody has to anybody else.

use std::collections::HashMap;
use std::sync::Arc;

use proxy_common::{Block, Destination, Route, RouteKey, RuleId, ServiceEntry, Target, WorkloadId};

use super::ids::Ids;
use super::{RuleView, ServiceView, Source, Subset};
use crate::balance::{Blocks, Masses, NoRoom};
use crate::config::object::AppProtocol;
use crate::tables::TableSet;

/// What placing a service's tables needs.
pub(super) struct Placing<'a> {
    pub(super) ids: &'a mut Ids,
    pub(super) blocks: &'a mut Blocks,
    /// Where tables, and what each source gets, go.
    pub(super) tables: &'a mut TableSet,
}

impl Placing<'_> {
    /// The entry of a service port, its tables placed.
    pub(super) fn entry(
        &mut self,
        view: &ServiceView,
        sources: &HashMap<WorkloadId, Arc<Source>>,
    ) -> Result<ServiceEntry, NoRoom> {
        if view.protocol != AppProtocol::Tcp {
            return Ok(ServiceEntry::proxied(view.id));
        }
        // A connection has no request to look at: rules that want one never match.
        let mut rules = view.rules.iter().filter(|rule| rule.request.is_empty());
        let first = rules.next();
        if first.is_none_or(|rule| rule.source.is_none()) {
            return Ok(ServiceEntry::balanced(view.id, self.route(view, first)?));
        }
        let mut placed: HashMap<_, Route> = HashMap::new();
        for source in sources.values() {
            let rule = view.matching(source, None);
            let name = rule.map(|rule| &rule.name);
            let route = match placed.get(&name) {
                Some(route) => *route,
                None => self.route(view, rule)?,
            };
            placed.insert(name, route);
            let key = RouteKey {
                service: view.id,
                workload: source.id,
            };
            self.tables.routes.insert(key, route);
        }
        Ok(ServiceEntry::balanced_by_source(view.id))
    }

    fn route(&mut self, view: &ServiceView, rule: Option<&RuleView>) -> Result<Route, NoRoom> {
        let (block, slots) = self.blocks.place(masses(view, rule))?;
        if block != Block::EMPTY {
            self.tables.blocks.insert(block, slots);
        }
        Ok(Route {
            block,
            rule: rule.map_or(RuleId::NONE, |rule| self.ids.route_rule(&rule.name)),
        })
    }
}

/// What each endpoint gets of the connections that `rule` holds for.
fn masses(view: &ServiceView, rule: Option<&RuleView>) -> Masses {
    let shares: Vec<(u32, Vec<Target>)> = match rule {
        None => vec![(100, targets(&view.all))],
        Some(rule) => rule
            .weights
            .iter()
            .copied()
            .zip(rule.subsets.iter().map(targets))
            .collect(),
    };
    Masses::of(&shares)
}

fn targets(subset: &Subset) -> Vec<Target> {
    let endpoints = subset.endpoints.iter();
    endpoints
        .map(|endpoint| Target::new(Destination::from(endpoint.addr)))
        .collect()
}
