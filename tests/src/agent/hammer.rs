//! Short connections, one after the other on a few threads, in every manner in
//! which a client can leave.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use socket2::SockRef;

use super::proto::Fault;

const THREADS: usize = 4;
/// How long one connection may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Opens and ends `count` connections: how many ended in which way.
pub(super) fn run(addr: SocketAddr, count: u64) -> Result<BTreeMap<String, u64>, Fault> {
    let threads: Vec<_> = (0..THREADS)
        .map(|first| {
            thread::spawn(move || {
                let mut outcomes = BTreeMap::new();
                for number in (0..count).skip(first).step_by(THREADS) {
                    *outcomes.entry(one(addr, number)).or_default() += 1;
                }
                outcomes
            })
        })
        .collect();
    let mut all = BTreeMap::new();
    for thread in threads {
        let outcomes: BTreeMap<String, u64> = thread
            .join()
            .map_err(|_| Fault::other("a thread of the hammer panicked"))?;
        for (outcome, count) in outcomes {
            *all.entry(outcome).or_default() += count;
        }
    }
    Ok(all)
}

fn one(addr: SocketAddr, number: u64) -> String {
    match connection(addr, number) {
        Ok(()) => "OK".to_owned(),
        Err(error) => error.raw_os_error().map_or_else(
            || error.to_string(),
            |code| format!("{:?}", Errno::from_raw(code)),
        ),
    }
}

/// Turn by turn: to its end, cut off before a byte was sent, cut off with bytes
/// on their way. What is cut off leaves no port waiting.
fn connection(addr: SocketAddr, number: u64) -> io::Result<()> {
    use io::{Read as _, Write as _};
    let mut stream = TcpStream::connect_timeout(&addr, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    if number % 3 == 1 {
        return SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
    stream.write_all(b"who?\n")?;
    if number % 3 == 2 {
        return SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}
