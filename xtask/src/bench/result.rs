//! What was measured: one value for each row, load, quantity and round, and
//! the medians over the rounds.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::load::Load;
use super::meter::Cpu;
use super::row::Kind;

/// What a load generator says of one run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Measured {
    /// Requests, exchanges, connections, or MiB in bulk.
    pub(super) operations: f64,
    /// How long that took.
    pub(super) seconds: f64,
    /// Median latency; zero in bulk.
    pub(super) p50_us: f64,
    /// 99th percentile of the latency; zero in bulk.
    pub(super) p99_us: f64,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Quantity {
    /// Operations a second.
    Rate,
    /// Median latency in µs.
    P50,
    /// 99th percentile of the latency in µs.
    P99,
    /// The proxy's CPU time for one operation in µs.
    ProxyCpu,
    /// The whole machine's CPU time for one operation in µs.
    NodeCpu,
    /// Gbit a second, in bulk.
    Gbits,
}

impl Quantity {
    /// Its name in a table.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Rate => "operations/s",
            Self::P50 => "p50 µs",
            Self::P99 => "p99 µs",
            Self::ProxyCpu => "proxy CPU µs/op",
            Self::NodeCpu => "node CPU µs/op",
            Self::Gbits => "Gbit/s",
        }
    }

    /// Its name in JSON.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Rate => "operationsPerSecond",
            Self::P50 => "p50Micros",
            Self::P99 => "p99Micros",
            Self::ProxyCpu => "proxyCpuMicrosPerOperation",
            Self::NodeCpu => "nodeCpuMicrosPerOperation",
            Self::Gbits => "gbitsPerSecond",
        }
    }
}

/// Everything that was measured.
#[derive(Default)]
pub(super) struct Results {
    values: BTreeMap<(Load, Kind, Quantity), Vec<f64>>,
}

impl Results {
    /// Adds one run of `load` on a row.
    pub(super) fn add(&mut self, load: Load, kind: Kind, measured: Measured, cpu: Cpu) {
        let per_operation = |time: Duration| time.as_secs_f64() * 1e6 / measured.operations;
        let rate = measured.operations / measured.seconds;
        let mut put = |quantity, value| {
            self.values
                .entry((load, kind, quantity))
                .or_default()
                .push(value);
        };
        if load.is_bulk() {
            // MiB to Gbit.
            put(Quantity::Gbits, rate * 8.0 * 1_048_576.0 / 1e9);
        } else {
            put(Quantity::Rate, rate);
            put(Quantity::P50, measured.p50_us);
            put(Quantity::P99, measured.p99_us);
        }
        if kind.has_proxy() {
            put(Quantity::ProxyCpu, per_operation(cpu.proxy));
        }
        put(Quantity::NodeCpu, per_operation(cpu.machine));
    }

    /// The values of all rounds.
    pub(super) fn rounds(&self, load: Load, kind: Kind, quantity: Quantity) -> &[f64] {
        self.values
            .get(&(load, kind, quantity))
            .map_or(&[], Vec::as_slice)
    }

    /// The median over the rounds; none if it was not measured.
    pub(super) fn median(&self, load: Load, kind: Kind, quantity: Quantity) -> Option<f64> {
        median(self.rounds(load, kind, quantity))
    }

    /// The median over the rounds of one row by another, each round with itself:
    /// what the machine did besides was the same for both.
    pub(super) fn ratio(
        &self,
        load: Load,
        quantity: Quantity,
        over: Kind,
        under: Kind,
    ) -> Option<f64> {
        let under = self.rounds(load, under, quantity);
        let over = self.rounds(load, over, quantity);
        let ratios: Vec<f64> = over.iter().zip(under).map(|(a, b)| a / b).collect();
        median(&ratios)
    }
}

/// The middle value, or the mean of the two middle ones.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        return Some(sorted[middle]);
    }
    let (low, high) = (sorted.get(middle.checked_sub(1)?)?, sorted.get(middle)?);
    Some(f64::midpoint(*low, *high))
}

/// The value below which `percent` of the sorted values lie, in µs from ns.
pub(super) fn percentile_us(sorted_ns: &[u32], percent: usize) -> f64 {
    let index = sorted_ns.len() * percent / 100;
    let value = sorted_ns.get(index.min(sorted_ns.len().saturating_sub(1)));
    value.map_or(0.0, |ns| f64::from(*ns) / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn ratios_are_of_one_round_each() {
        let mut results = Results::default();
        let cpu = Cpu {
            proxy: Duration::ZERO,
            machine: Duration::from_secs(1),
        };
        // The machine became three times as fast; the second row stays at twice the first.
        for operations in [1.0, 2.0, 3.0] {
            for (kind, times) in [(Kind::NoMesh, 1.0), (Kind::Balance, 2.0)] {
                let measured = Measured {
                    operations: operations * times,
                    seconds: 1.0,
                    p50_us: 1.0,
                    p99_us: 1.0,
                };
                results.add(Load::Http64, kind, measured, cpu);
            }
        }
        let ratio = |over, under| results.ratio(Load::Http64, Quantity::Rate, over, under);
        assert_eq!(ratio(Kind::Balance, Kind::NoMesh), Some(2.0));
        assert_eq!(ratio(Kind::Weir, Kind::NoMesh), None);
    }

    #[test]
    fn percentiles_count_from_below() {
        let sorted: Vec<u32> = (0..100).map(|value| value * 1000).collect();
        assert!((percentile_us(&sorted, 50) - 50.0).abs() < 1e-9);
        assert!((percentile_us(&sorted, 99) - 99.0).abs() < 1e-9);
        assert!(percentile_us(&[], 50).abs() < 1e-9);
    }
}
