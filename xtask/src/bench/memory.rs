//! Memory: of an idle proxy, and of each connection that it holds.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::Node;

use super::meter::resident;
use super::peer::HTTP_PORT;
use super::row::{Kind, Plan, Row};

/// Connections that are held.
const CONNECTIONS: u32 = 2000;
/// How long things may settle before memory is read.
const SETTLE: Duration = Duration::from_secs(1);

/// What a proxy takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// Resident memory of a proxy that serves one pod and was hardly used, in bytes.
    pub(super) idle: f64,
    /// What each idle HTTP keep-alive connection adds, in bytes.
    pub(super) per_connection: f64,
}

/// Measures on a node that was not used yet, and is gone afterwards.
pub(super) fn measure(kind: Kind, plan: &Plan) -> Result<Memory> {
    let node = Node::new()?;
    let row = Row::new(&node, kind, plan)?;
    let proxy = row
        .proxy()
        .context("a row without proxy has no memory to measure")?;
    thread::sleep(SETTLE);
    let idle = resident(proxy)?;
    let to = row.destination(HTTP_PORT).to_string();
    let mut holder = row
        .peer(&["hold", &to, &CONNECTIONS.to_string()])?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("the peer does not start")?;
    let stdout = holder.stdout.take().context("its output is a pipe")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    thread::sleep(SETTLE);
    let used = resident(proxy);
    // The end of its input is what ends it.
    drop(holder.stdin.take());
    let status = holder.wait()?;
    ensure!(line.trim() == "ready" && status.success(), "{}", row.log());
    Ok(Memory {
        idle: bytes(idle),
        per_connection: bytes(used?.saturating_sub(idle)) / f64::from(CONNECTIONS),
    })
}

#[expect(clippy::cast_precision_loss, reason = "no process has 2^52 bytes")]
fn bytes(count: u64) -> f64 {
    count as f64
}
