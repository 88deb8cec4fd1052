//! Servers that an agent can be, each on threads of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use super::proto::{Fault, Service};
use super::{datagram, http};
use crate::app;

/// Serves until the agent ends; the address it got.
pub(super) fn start(addr: SocketAddr, what: Service) -> Result<SocketAddr, Fault> {
    match what {
        Service::Dns { records } => {
            let socket = UdpSocket::bind(addr)?;
            let bound = socket.local_addr()?;
            thread::spawn(move || dns(&socket, &records));
            Ok(bound)
        }
        Service::Datagrams { name } => {
            let socket = UdpSocket::bind(addr)?;
            let bound = socket.local_addr()?;
            thread::spawn(move || datagram::whoami(&socket, &name));
            Ok(bound)
        }
        Service::Http { pod, version } => {
            let listener = TcpListener::bind(addr)?;
            let bound = listener.local_addr()?;
            listener.set_nonblocking(true)?;
            let runtime = http::runtime()?;
            thread::spawn(move || {
                if let Err(error) = runtime.block_on(app::echo::serve(listener, pod, version)) {
                    eprintln!("the HTTP server ends: {error:#}");
                }
            });
            Ok(bound)
        }
        Service::Echo => each(addr, echo),
        Service::Banner { text } => each(addr, move |stream| {
            (&stream).write_all(text.as_bytes())?;
            echo(stream)
        }),
        Service::Whoami { name } => each(addr, move |stream| whoami(&name, &stream)),
    }
}

/// One thread a connection; how a connection ends is the client's to judge.
fn each(
    addr: SocketAddr,
    serve: impl Fn(TcpStream) -> std::io::Result<()> + Clone + Send + 'static,
) -> Result<SocketAddr, Fault> {
    let listener = TcpListener::bind(addr)?;
    let bound = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || {
                let _: std::io::Result<()> = serve(stream);
            });
        }
    });
    Ok(bound)
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut chunk = vec![0; 256 << 10];
    loop {
        match stream.read(&mut chunk)? {
            0 => return stream.shutdown(Shutdown::Write),
            len => stream.write_all(&chunk[..len])?,
        }
    }
}

fn whoami(name: &str, stream: &TcpStream) -> std::io::Result<()> {
    let peer = stream.peer_addr()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let mut stream = stream;
    stream.write_all(format!("{name} {peer} {}", line.trim()).as_bytes())
}

/// Answers A and AAAA questions; every other type with no records, every other name with NXDOMAIN.
fn dns(socket: &UdpSocket, records: &BTreeMap<String, Vec<IpAddr>>) {
    let mut packet = [0; 512];
    while let Ok((len, peer)) = socket.recv_from(&mut packet) {
        if let Some(answer) = dns_answer(&packet[..len], records) {
            // A client that went away asks again.
            let _: std::io::Result<usize> = socket.send_to(&answer, peer);
        }
    }
}

/// The answer to a question as RFC 1035 writes both; `None` if it is none.
fn dns_answer(packet: &[u8], records: &BTreeMap<String, Vec<IpAddr>>) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let mut name = Vec::new();
    let mut at = HEADER;
    loop {
        let len = usize::from(*packet.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        name.push(
            std::str::from_utf8(packet.get(at..at + len)?)
                .ok()?
                .to_lowercase(),
        );
        at += len;
    }
    let question = packet.get(HEADER..at + 4)?;
    let asked = packet.get(at..at + 2)?;
    let known = records.get(&name.join("."));
    // The types A and AAAA, and the address as each writes it.
    let written = |address: &IpAddr| match address {
        IpAddr::V4(ip) => ([0, 1], ip.octets().to_vec()),
        IpAddr::V6(ip) => ([0, 28], ip.octets().to_vec()),
    };
    let addresses: Vec<_> = known
        .into_iter()
        .flatten()
        .map(written)
        .filter(|(kind, _)| asked == kind)
        .collect();
    let mut answer = packet.get(..2)?.to_vec();
    // A response, recursion desired and available; NXDOMAIN where the name is unknown.
    answer.extend([0x81, if known.is_some() { 0x80 } else { 0x83 }]);
    answer.extend([0, 1, 0, u8::try_from(addresses.len()).ok()?, 0, 0, 0, 0]);
    answer.extend(question);
    for (kind, octets) in addresses {
        // The name as a pointer to the question's, type, class IN, 1 s to live, length.
        answer.extend([0xc0, 12]);
        answer.extend(kind);
        answer.extend([0, 1, 0, 0, 0, 1, 0, u8::try_from(octets.len()).ok()?]);
        answer.extend(octets);
    }
    Some(answer)
}
