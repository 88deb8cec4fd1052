//! Thousands of connections on two CPUs: what goes wrong once in a while.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::super::arena::{Fault, Road, expect, numbered, patient, read_some, read_to_end, write};
use super::super::pace::paced;

const ROUNDS: u32 = 2_000;

/// What they may take on a usual machine; a tenth of it is usual.
const LIMIT: Duration = Duration::from_secs(3);

/// A length first, then so many words in up to seven pieces; the answer is the same again.
pub(super) fn rounds(road: Road) -> Result<(), Fault> {
    on_two_cpus(
        road,
        |near, words| {
            let bytes = numbered(words, words);
            write(near, &words.to_be_bytes())?;
            in_pieces(near, &bytes, words)?;
            let answer = read_some(near, bytes.len())?;
            expect(answer == bytes, || "the order was lost".to_owned())
        },
        |far| {
            let words = read_some(far, 4)?;
            let words = <[u8; 4]>::try_from(words).map_or(0, u32::from_be_bytes);
            let bytes = read_some(far, words as usize * 4)?;
            expect(bytes == numbered(words, words), || {
                "the order was lost".to_owned()
            })?;
            write(far, &bytes)
        },
    )
}

/// The FIN says that the question is complete.
pub(super) fn half_closed(road: Road) -> Result<(), Fault> {
    on_two_cpus(
        road,
        |near, words| {
            let bytes = numbered(words, words);
            in_pieces(near, &bytes, words)?;
            near.shutdown(Shutdown::Write)?;
            let answer = read_to_end(near)?;
            expect(answer == bytes, || "the answer is not whole".to_owned())
        },
        |far| {
            let bytes = read_to_end(far)?;
            write(far, &bytes)
        },
    )
}

fn in_pieces(stream: &TcpStream, bytes: &[u8], round: u32) -> Result<(), Fault> {
    let pieces = round as usize % 7 + 1;
    bytes
        .chunks(bytes.len() / pieces + 1)
        .try_for_each(|part| write(stream, part))
}

/// One thread on each CPU: one dials and asks, the other accepts and answers.
fn on_two_cpus(
    road: Road,
    ask: impl Fn(&TcpStream, u32) -> Result<(), Fault>,
    answer: impl Fn(&TcpStream) -> Result<(), Fault> + Sync,
) -> Result<(), Fault> {
    let listener = road.listen_with(128)?;
    let to = listener.local_addr()?;
    let cpus = two_cpus()?;
    let (mut done, mut wrong, mut first) = (0, 0, None);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (listener, answer, over) = (&listener, &answer, &over);
        scope.spawn(move || serve(listener, cpus.1, over, answer));
        // Without it the rounds are fewer kinds of race, and nothing is wrong.
        let _anywhere = pin(cpus.0);
        let until = Instant::now() + paced(LIMIT);
        while done < ROUNDS && Instant::now() < until {
            done += 1;
            if let Err(fault) = one(to, 20 + done % 300, &ask) {
                wrong += 1;
                first.get_or_insert(fault);
            }
        }
        over.store(true, Ordering::Relaxed);
        // Wakes who accepts.
        drop(TcpStream::connect(to));
    });
    match first {
        Some(fault) => Err(Fault::Wrong(format!("{wrong} of {done}: {fault}"))),
        None => expect(done == ROUNDS, || {
            format!("only {done} rounds within {:?}", paced(LIMIT))
        }),
    }
}

fn one(
    to: SocketAddr,
    words: u32,
    ask: &impl Fn(&TcpStream, u32) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let near = TcpStream::connect(to)?;
    patient(&near)?;
    ask(&near, words)
}

/// Answers each connection once. What goes wrong here goes wrong for who asks too.
fn serve(
    listener: &TcpListener,
    cpu: usize,
    over: &AtomicBool,
    answer: &(impl Fn(&TcpStream) -> Result<(), Fault> + Sync),
) {
    let _anywhere = pin(cpu);
    while let Ok((far, _)) = listener.accept() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let _seen = patient(&far)
            .map_err(Fault::from)
            .and_then(|()| answer(&far));
    }
}

/// Two CPUs that this process may use; twice the same where there is but one.
fn two_cpus() -> Result<(usize, usize), Fault> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let mut cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let first = cpus.next().unwrap_or(0);
    Ok((first, cpus.next().unwrap_or(first)))
}

fn pin(cpu: usize) -> Result<(), Fault> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
