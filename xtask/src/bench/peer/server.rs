//! The server: one thread, as nginx with one worker would be.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::{BULK_PORT, CHUNK, ECHO_PORT, HTTP_PORT, MESSAGE, OPAQUE_PORT, SERVER_SENDS};

/// Connections at one time and port; the loads open far fewer.
const CONNECTIONS_MAX: usize = 16_384;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Serves until the process is ended.
pub(super) fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let (http, opaque) = (serve(HTTP_PORT, http), serve(OPAQUE_PORT, http));
        let echo6 = serve_on(Ipv6Addr::UNSPECIFIED.into(), ECHO_PORT, echo);
        let echo = serve(ECHO_PORT, echo);
        let bulk = serve(BULK_PORT, bulk);
        tokio::try_join!(http, opaque, echo, echo6, bulk, datagrams()).map(drop)
    })
}

/// Serves `port` over IPv4.
async fn serve<F, R>(port: u16, handle: F) -> Result<Infallible>
where
    F: Fn(TcpStream) -> R,
    R: Future<Output = Result<()>> + Send + 'static,
{
    serve_on(Ipv4Addr::UNSPECIFIED.into(), port, handle).await
}

/// Accepts on `port` of `address` and runs `handle` for each connection. What becomes
/// of a connection is the client's to judge.
async fn serve_on<F, R>(address: IpAddr, port: u16, handle: F) -> Result<Infallible>
where
    F: Fn(TcpStream) -> R,
    R: Future<Output = Result<()>> + Send + 'static,
{
    let address = SocketAddr::new(address, port);
    let listener = listen(address).with_context(|| format!("cannot listen on {address}"))?;
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        while connections.try_join_next().is_some() {}
        if connections.len() < CONNECTIONS_MAX {
            connections.spawn(handle(stream));
        }
    }
}

/// A listener for the family of its address alone, so that each has a socket of its own
/// kind: an IPv4 client of an IPv6 socket takes another way.
fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        None,
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into())?)
}

async fn http(stream: TcpStream) -> Result<()> {
    let answer = service_fn(|_: Request<hyper::body::Incoming>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
    });
    http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await?;
    Ok(())
}

async fn echo(mut stream: TcpStream) -> Result<()> {
    let mut message = [0; MESSAGE];
    loop {
        stream.read_exact(&mut message).await?;
        stream.write_all(&message).await?;
    }
}

/// Sends every datagram back to where it came from.
async fn datagrams() -> Result<Infallible> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, ECHO_PORT));
    let socket = UdpSocket::bind(address)
        .await
        .with_context(|| format!("cannot take datagrams on {address}"))?;
    let mut message = [0; MESSAGE];
    loop {
        let (count, from) = socket.recv_from(&mut message).await?;
        socket.send_to(&message[..count], from).await?;
    }
}

/// Sends until the client is gone; or takes until it has ended, and says how much.
async fn bulk(mut stream: TcpStream) -> Result<()> {
    let mut chunk = vec![7; CHUNK];
    if stream.read_u8().await? == SERVER_SENDS {
        loop {
            stream.write_all(&chunk).await?;
        }
    }
    let mut taken: u64 = 0;
    loop {
        match stream.read(&mut chunk).await? {
            0 => break,
            count => taken += count as u64,
        }
    }
    stream.write_u64(taken).await?;
    Ok(())
}
