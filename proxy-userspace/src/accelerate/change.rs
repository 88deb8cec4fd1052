//! What the self-test tries with the kernel half in its hands: whether anything is
//! accelerated, and what becomes of connections when the tables change under them.
//!
//! Must run while no case does: it counts connections, and takes the programs away.

use std::net::TcpStream;

use proxy_common::{Counter, Extent};

use super::arena::{Family, Fault, Pair, Road, expect, numbered, read_some, write};
use super::trial::tables;
use crate::kernel::{Kernel, KernelError};
use crate::socket::Netns;
use crate::tables::TableSet;

/// Fewer than the cases make in one family.
const FEWEST: u64 = 1_000;

/// All that the cases did, and one connection of each family alone.
pub(super) fn were_accelerated(kernel: &Kernel, families: &[Family]) -> Result<(), Fault> {
    let before = accelerated(kernel);
    expect(before > FEWEST, || format!("{before} connections were"))?;
    for (before, family) in (before..).zip(families) {
        let _ends = Road::accelerated(*family).pair()?;
        expect(accelerated(kernel) == before + 1, || {
            format!("none is over {}", family.name())
        })?;
    }
    Ok(())
}

fn accelerated(kernel: &Kernel) -> u64 {
    let counters = kernel.counters();
    let found = counters
        .iter()
        .find(|(counter, _)| *counter == Counter::Accelerated);
    found.map_or(0, |(_, total)| *total)
}

/// A change that finds bytes under way.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Of what is accelerated.
    Extent(Extent),
    /// Nobody is enrolled any more, and nobody near.
    Unenrol,
    /// Everybody is back.
    Enrol,
}

impl Step {
    const ALL: [Self; 6] = [
        Self::Extent(Extent::Nobody),
        Self::Extent(Extent::All),
        Self::Extent(Extent::Forced),
        Self::Unenrol,
        Self::Enrol,
        Self::Unenrol,
    ];

    fn make(self, kernel: &mut Kernel, enrolled: &TableSet) -> Result<(), KernelError> {
        match self {
            Self::Extent(extent) => kernel.accelerate(extent),
            Self::Unenrol => kernel.write(&TableSet::default()),
            Self::Enrol => kernel.write(enrolled),
        }
    }
}

/// Changes one thing after another while bytes are under way both ways.
pub(super) fn outlived(kernel: &mut Kernel, families: &[Family]) -> Result<(), Fault> {
    const WORDS: u32 = 10_000;
    let enrolled = tables(Netns::current()?.cookie());
    let pairs = families
        .iter()
        .map(|family| Road::accelerated(*family).pair());
    let pairs: Vec<Pair> = pairs.collect::<Result<_, _>>()?;
    let ways: Vec<(&TcpStream, &TcpStream)> = pairs
        .iter()
        .flat_map(|Pair { near, far }| [(near, far), (far, near)])
        .collect();
    for (turn, step) in (0..).zip(Step::ALL) {
        let bytes = numbered(turn * WORDS, WORDS);
        let (before, after) = bytes.split_at(bytes.len() / 2);
        for (from, _) in &ways {
            write(from, before)?;
        }
        step.make(kernel, &enrolled)
            .map_err(|error| Fault::Wrong(error.to_string()))?;
        for (from, to) in &ways {
            write(from, after)?;
            let read = read_some(to, bytes.len())?;
            expect(read == bytes, || {
                format!("after {step:?} bytes are missing or out of order")
            })?;
        }
    }
    Ok(())
}
