//! What a whole `connect()` to a pod takes beside the same one without weir.
//!
//! The kernel's statistics must be off here: they take longer than some hooks.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use testbed::{Node, Pod, Proc};

use super::case::Case;
use super::site::{Site, dial};
use crate::bench::peer::{ECHO_PORT, serve_in};
use crate::bench::result::median;

/// What is compared, all with servers of one kind on the same sort of wire.
pub(super) const CASES: [Case; 8] = [
    Case::NoMesh,
    Case::Unenrolled,
    Case::Direct,
    Case::Balance,
    Case::Proxy,
    Case::NoMesh6,
    Case::Direct6,
    Case::Balance6,
];

/// The median call of each turn, in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Calls {
    turns: BTreeMap<Case, Vec<f64>>,
}

impl Calls {
    /// Measures every case in turn, `turns` times.
    pub(super) fn measure(turns: u32) -> Result<Self> {
        let (bare, meshed) = (Node::new()?, Node::new()?);
        let bare = Bare::new(&bare)?;
        let site = Site::new(&meshed)?;
        let mut calls = Self::default();
        for _ in 0..turns {
            for case in CASES {
                let dialled = match case {
                    Case::NoMesh | Case::NoMesh6 => bare.dial(case)?,
                    _ => site.dial_pod(case)?,
                };
                let dialled = dialled.check(false).context(case.title())?;
                calls.turns.entry(case).or_default().push(dialled.p50_ns);
            }
        }
        Ok(calls)
    }

    /// The median over the turns, in nanoseconds.
    pub(super) fn median(&self, case: Case) -> Option<f64> {
        median(self.turns.get(&case)?)
    }

    /// How much longer it takes than without weir: the median over the turns of
    /// the difference in each, in nanoseconds.
    pub(super) fn more(&self, case: Case) -> Option<f64> {
        let bare = self.turns.get(&case.without_weir())?;
        let turns = self.turns.get(&case)?.iter().zip(bare);
        let more: Vec<f64> = turns.map(|(call, bare)| call - bare).collect();
        median(&more)
    }
}

/// Two pods without weir.
struct Bare {
    _process: Proc,
    client: Pod,
    server: Pod,
}

impl Bare {
    fn new(node: &Node) -> Result<Self> {
        let [client, server] = node.pods(["client", "server"])?;
        Ok(Self {
            _process: serve_in(&server)?,
            client,
            server,
        })
    }

    fn dial(&self, case: Case) -> Result<super::dial::Dialled> {
        let to = if case.is_v6() {
            self.server.at6(ECHO_PORT)
        } else {
            self.server.at(ECHO_PORT)
        };
        dial(&self.client, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_taken_turn_by_turn() {
        let mut calls = Calls::default();
        calls.turns.insert(Case::NoMesh, vec![10.0, 20.0, 40.0]);
        calls.turns.insert(Case::Balance, vec![11.0, 22.0, 41.0]);
        assert_eq!(calls.more(Case::Balance), Some(1.0));
        assert_eq!(calls.more(Case::Direct), None);
        calls.turns.insert(Case::NoMesh6, vec![20.0, 30.0, 50.0]);
        calls.turns.insert(Case::Balance6, vec![22.0, 33.0, 52.0]);
        assert_eq!(calls.more(Case::Balance6), Some(2.0));
    }
}
