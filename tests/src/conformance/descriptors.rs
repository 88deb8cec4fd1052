//! One connection, several descriptors and several processes.

use std::io::{BufRead, BufReader, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use socket2::Socket;

use super::Case;
use super::call::{fault, heard, outcome, recv, send};
use super::scene::Scene;

pub(super) const CASES: &[Case] = &[
    Case::new("descriptors/duplicated", duplicated),
    Case::new("descriptors/inherited", inherited),
    Case::new("descriptors/passed", passed),
];

/// The connection ends with its last descriptor.
fn duplicated(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    let twin = socket.try_clone()?;
    drop(socket);
    scene.names("of the twin", &twin);
    scene.exchange("over the twin", &twin, &conn)?;
    drop(twin);
    scene.note("peer receives", conn.hear(8)?);
    Ok(())
}

/// A child that is forked after the connect has the connection too.
fn inherited(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    let mut child = start("heir", Stdio::from(OwnedFd::from(socket.try_clone()?)))?;
    scene.note("peer receives from the child", conn.hear(40)?);
    // The child waits for an answer: the parent only speaks.
    let sent = send(&socket, b"from the parent");
    scene.note("send in the parent", outcome(sent));
    scene.note("peer receives from the parent", conn.hear(40)?);
    drop(socket);
    conn.say(b"to the child")?;
    report(scene, &mut child)?;
    scene.note("peer receives at the end", conn.hear(8)?);
    Ok(())
}

/// `SCM_RIGHTS`: a process that never connected talks on.
fn passed(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    let (own, theirs) = UnixStream::pair()?;
    let mut child = start("receiver", Stdio::from(OwnedFd::from(theirs)))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [socket.as_fd()];
    ensure!(
        control.push(SendAncillaryMessage::ScmRights(&fds)),
        "there is room for one descriptor"
    );
    let byte = [IoSlice::new(b"x")];
    rustix::net::sendmsg(&own, &byte, &mut control, SendFlags::empty())?;
    drop(socket);
    scene.note("peer receives from the receiver", conn.hear(40)?);
    conn.say(b"to the receiver")?;
    report(scene, &mut child)?;
    scene.note("peer receives at the end", conn.hear(8)?);
    Ok(())
}

fn start(role: &str, stdin: Stdio) -> Result<Child> {
    let own = std::env::current_exe().context("cannot tell which program runs")?;
    Command::new(own)
        .args(["conformance", role])
        .stdin(stdin)
        .stdout(Stdio::piped())
        .spawn()
        .context("a child does not start")
}

/// Notes what the child saw.
fn report(scene: &Scene, child: &mut Child) -> Result<()> {
    let said = child.stdout.take().context("its output is a pipe")?;
    let mut lines = BufReader::new(said).lines();
    let mut next = || {
        lines
            .next()
            .context("the child says too little")?
            .map_err(anyhow::Error::from)
    };
    let peer = next()?;
    let live = scene.live().to_string();
    let name = if peer == live { "live" } else { "a stranger" };
    scene.note("getpeername in the child", name);
    scene.note("send in the child", next()?);
    scene.note("receive in the child", next()?);
    ensure!(child.wait()?.success(), "the child fails");
    Ok(())
}

/// The child that has the connection as its standard input.
pub(super) fn be_heir() -> Result<()> {
    talk(&Socket::from(
        std::io::stdin().as_fd().try_clone_to_owned()?,
    ))
}

/// The child that gets the connection over its standard input.
pub(super) fn be_receiver() -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let stdin = std::io::stdin();
    rustix::net::recvmsg(&stdin, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    talk(&Socket::from(fd.context("no descriptor came")?))
}

/// Says who the peer is, and speaks with it.
fn talk(socket: &Socket) -> Result<()> {
    match socket.peer_addr() {
        Ok(addr) => println!("{}", addr.as_socket().context("an internet address")?),
        Err(error) => println!("{}", fault(&error)),
    }
    println!("{}", outcome(send(socket, b"from the child")));
    println!("{}", heard(recv(socket, 40)));
    Ok(())
}
