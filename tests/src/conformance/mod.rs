//! "The app cannot tell": the same program, run without weir and with it.
//!
//! A case makes system calls as an application does and notes all that they
//! say; [`expected`] holds what may differ under which verdict, [`compare`]
//! finds what differs in fact. One file for each family of cases. A case must
//! never note what two runs without weir could tell apart (times, ports,
//! amounts that the kernel chooses), and never judge what it sees.

mod call;
mod close;
pub mod compare;
mod connect;
mod dead;
mod denied;
mod descriptors;
mod events;
pub mod expected;
mod names;
mod options;
mod peer;
mod remote;
mod route;
mod scene;
mod socket_options;
pub mod stage;
mod table;
mod transfer;
mod udp;
mod uring;
mod way;

use std::path::PathBuf;

use anyhow::{Context, Result};

pub use scene::Targets;
pub use way::Way;

use expected::Verdict;
use scene::Scene;

/// One thing that an application does.
#[derive(Clone, Copy)]
pub struct Case {
    /// Family and name.
    name: &'static str,
    run: fn(&Scene) -> Result<()>,
    is_datagrams: bool,
}

impl Case {
    const fn new(name: &'static str, run: fn(&Scene) -> Result<()>) -> Self {
        Self {
            name,
            run,
            is_datagrams: false,
        }
    }

    const fn datagrams(name: &'static str, run: fn(&Scene) -> Result<()>) -> Self {
        Self {
            is_datagrams: true,
            ..Self::new(name, run)
        }
    }
}

/// A case in one way.
#[derive(Clone, Copy)]
pub struct Run {
    case: &'static Case,
    /// The way.
    pub way: Way,
}

impl Run {
    /// Family, way, and name.
    pub fn name(&self) -> String {
        name_in(self.case.name, self.way)
    }

    /// Whether it sends datagrams.
    pub fn is_datagrams(&self) -> bool {
        self.case.is_datagrams
    }

    /// Whether the verdict can be had for what the case sends: UDP is never proxied.
    pub fn is_under(&self, verdict: &Verdict) -> bool {
        !self.case.is_datagrams || !verdict.is_proxy()
    }
}

/// What a case is called in a way: `connect/twice`, `connect6/twice`, `connect-mapped/twice`.
fn name_in(case: &str, way: Way) -> String {
    let (family, name) = case.split_once('/').expect("a family and a name");
    format!("{family}{}/{name}", way.suffix())
}

/// Every case in every way, in the order in which they are run.
pub fn runs() -> impl Iterator<Item = Run> {
    let each = [
        connect::CASES,
        route::CASES,
        dead::CASES,
        names::CASES,
        options::CASES,
        transfer::CASES,
        events::CASES,
        close::CASES,
        descriptors::CASES,
        uring::CASES,
        udp::CASES,
    ];
    let each = each.into_iter().flatten().map(|case| (case, Way::ALL));
    let four = udp::ROUTE_CASES.iter().map(|case| (case, &[Way::V4][..]));
    each.chain(four)
        .flat_map(|(case, ways)| ways.iter().map(move |way| Run { case, way: *way }))
}

/// The cases of what is denied, in every way.
pub fn denied_runs() -> impl Iterator<Item = Run> {
    denied::CASES
        .iter()
        .flat_map(|case| Way::ALL.iter().map(move |way| Run { case, way: *way }))
}

/// What the program inside a pod can be told.
#[derive(Debug, clap::Subcommand)]
pub enum Conformance {
    /// Runs one case and prints what it saw.
    Case {
        /// Its name.
        name: String,
        /// Whom it dials.
        #[command(flatten)]
        targets: Box<Targets>,
    },
    /// Is the other end of the cases.
    Peer {
        /// The unix socket on which it takes requests.
        socket: PathBuf,
    },
    /// Takes over a connected socket as standard input.
    Heir,
    /// Takes over a connected socket that comes over standard input.
    Receiver,
}

impl Conformance {
    /// Does it.
    pub fn run(self) -> Result<()> {
        match self {
            Self::Case { name, targets } => run_case(&name, *targets),
            Self::Peer { socket } => peer::serve(&socket),
            Self::Heir => descriptors::be_heir(),
            Self::Receiver => descriptors::be_receiver(),
        }
    }
}

fn run_case(name: &str, targets: Targets) -> Result<()> {
    let run = runs()
        .chain(denied_runs())
        .find(|run| run.name() == name)
        .with_context(|| format!("there is no case `{name}`"))?;
    let scene = Scene::new(targets, run.way)?;
    (run.case.run)(&scene)?;
    println!("{}", scene.into_json()?);
    Ok(())
}
