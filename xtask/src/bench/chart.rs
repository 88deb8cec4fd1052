//! The loads as bars: a plot for each, in the order of the rows.

use super::load::Load;
use super::plot::{self, Bar};
use super::report::cell;
use super::result::{Quantity, Results};
use super::row::Kind;

impl Kind {
    /// What is alike has one colour: nothing, iptables, weir, weir accelerated.
    const fn colour(self) -> &'static str {
        match self {
            Self::NoMesh => "#777777",
            Self::Haproxy | Self::Nginx | Self::Envoy | Self::Redirect => "#e69f00",
            Self::Weir | Self::WeirLogged | Self::Balance => "#0072b2",
            Self::Accelerated | Self::BalanceAccelerated => "#009e73",
        }
    }
}

impl Load {
    /// What its bars are as long as.
    const fn charted(self) -> Quantity {
        match self {
            // How many fit into a second depends on who wakes up where.
            Self::Connect => Quantity::NodeCpu,
            Self::Send | Self::Receive => Quantity::Gbits,
            _ => Quantity::Rate,
        }
    }
}

/// The name of a load's plot.
pub(super) fn file(load: Load) -> String {
    format!("load-{}.svg", load.key())
}

/// The plots: file names and contents.
pub(super) fn files(results: &Results, rows: &[Kind]) -> Vec<(String, String)> {
    let loads = Load::ALL.into_iter().filter(|_| !rows.is_empty());
    loads
        .map(|load| {
            let quantity = load.charted();
            let bar = |kind: &Kind| {
                let value = results.median(load, *kind, quantity)?;
                Some(Bar {
                    title: kind.title(),
                    value,
                    words: cell(Some(value)),
                    colour: kind.colour(),
                })
            };
            let bars: Vec<Bar> = rows.iter().filter_map(bar).collect();
            let hint = match quantity {
                Quantity::NodeCpu => ", less is better",
                _ => "",
            };
            let title = format!("{}: {}{hint}", load.name(), quantity.title());
            (file(load), plot::bars(&title, &bars))
        })
        .collect()
}
