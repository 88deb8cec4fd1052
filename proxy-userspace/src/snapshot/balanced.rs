//! The kernel's entries of service ports, and the tables of those that it
//! balances itself.
//!
//! Owns how route rules become shares: one table for each class of sources that
//! the rules of a port tell apart. Must never give the share of labels that
//! nobody has to anybody else.

use std::collections::HashMap;
use std::sync::Arc;

use proxy_common::{
    Addr, Block, Destination, Route, RouteKey, RuleId, ServiceEntry, ServiceId, Target, WorkloadId,
};

use super::ids::Ids;
use super::{RuleView, ServiceView, Source, Subset};
use crate::balance::{Blocks, Masses, NoRoom};
use crate::tables::TableSet;

/// What placing a service's tables needs.
pub(super) struct Placing<'a> {
    pub(super) ids: &'a mut Ids,
    pub(super) blocks: &'a mut Blocks,
    /// Where tables, and what each source gets, go.
    pub(super) tables: &'a mut TableSet,
    /// A virtual address of the family that the tables are for.
    pub(super) dialled: Addr,
}

impl Placing<'_> {
    /// The entry of a service port, its table placed. Where its rules tell
    /// sources apart it has none: see [`Self::routes`].
    pub(super) fn entry(&mut self, view: &ServiceView) -> Result<ServiceEntry, NoRoom> {
        if !view.protocol.is_balanced() {
            return Ok(ServiceEntry::proxied(view.id));
        }
        // A connection has no request to look at: rules that want one never match.
        let mut rules = view.rules.iter().filter(|rule| rule.request.is_empty());
        let first = rules.next();
        if first.is_none_or(|rule| rule.source.is_none()) {
            return Ok(ServiceEntry::balanced(view.id, self.route(view, first)?));
        }
        Ok(ServiceEntry::balanced_by_source(view.id))
    }

    /// What each of `sources` gets of a service port that tells them apart.
    pub(super) fn routes(
        &mut self,
        view: &ServiceView,
        sources: &[Arc<Source>],
    ) -> Result<(), NoRoom> {
        let mut placed: HashMap<_, Route> = HashMap::new();
        for source in sources {
            let rule = view.matching(source, None);
            let name = rule.map(|rule| &rule.name);
            let route = match placed.get(&name) {
                Some(route) => *route,
                None => self.route(view, rule)?,
            };
            placed.insert(name, route);
            let key = route_key(view.id, source.id, &self.dialled);
            self.tables.put_route(key, route);
        }
        Ok(())
    }

    fn route(&mut self, view: &ServiceView, rule: Option<&RuleView>) -> Result<Route, NoRoom> {
        let (block, slots) = self.blocks.place(masses(view, rule, &self.dialled))?;
        if block != Block::EMPTY {
            self.tables.blocks.insert(block, slots);
        }
        Ok(Route {
            block,
            rule: rule.map_or(RuleId::NONE, |rule| self.ids.route_rule(&rule.name)),
        })
    }
}

/// Where the route of a source stands, for who dials an address like `dialled`.
pub(super) fn route_key(service: ServiceId, workload: WorkloadId, dialled: &Addr) -> RouteKey {
    RouteKey {
        service,
        workload,
        v6: u32::from(!dialled.is_v4()),
    }
}

/// What each endpoint gets of the connections that `rule` holds for.
fn masses(view: &ServiceView, rule: Option<&RuleView>, dialled: &Addr) -> Masses {
    let shares: Vec<(u32, Vec<Target>)> = match rule {
        None => vec![(100, targets(&view.all, dialled))],
        Some(rule) => {
            let subsets = rule.subsets.iter();
            let targets = subsets.map(|subset| targets(subset, dialled));
            rule.weights.iter().copied().zip(targets).collect()
        }
    };
    Masses::of(&shares)
}

fn targets(subset: &Subset, dialled: &Addr) -> Vec<Target> {
    let endpoints = subset.of_family(dialled);
    endpoints
        .map(|endpoint| Target::new(Destination::from(endpoint.addr)))
        .collect()
}
