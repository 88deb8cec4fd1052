//! What a weir that counts its branches is put through, so that a build by
//! those counts is fast at what weir does most.
//!
//! Owns the choice: every load of the bench, with and without access log, and
//! the apply of a full node's configuration. It measures nothing.

use std::time::Duration;

use anyhow::{Context, Result};
use testbed::{Node, Weir};

use super::load::Load;
use super::row::{Kind, Plan, Row};
use super::scale;

/// How long each load runs.
const LOAD_TIME: Duration = Duration::from_secs(3);

/// Runs everything on the weir of `WEIR_BIN`.
pub(crate) fn run() -> Result<()> {
    let plan = Plan::new(None)?;
    for kind in [Kind::Weir, Kind::WeirLogged] {
        let node = Node::new()?;
        let row = Row::new(&node, kind, &plan)?;
        for load in Load::ALL {
            load.run(&row, LOAD_TIME)
                .with_context(|| format!("{}, {}\n{}", load.key(), kind.title(), row.log()))?;
        }
    }
    let node = Node::new()?;
    let weir = Weir::start(&node)?;
    scale::apply_services(&node, &weir)?;
    weir.finish()
}
