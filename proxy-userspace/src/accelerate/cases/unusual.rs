//! What was there before a socket had its seat, or takes it over afterwards:
//! a read that waits already, `io_uring`, kTLS.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use nix::libc;

use super::super::arena::{Fault, Pair, Road, expect, expect_text, patient, read_some, write};
use super::super::pace::{paced, pause};
use crate::kernel::calls;
use crate::kernel::uring::MultishotReceive;

/// A connection that is not up yet: its SYN found the queue full, and is sent
/// again a second later. The queue has room from then on.
struct Early {
    near: TcpStream,
    listener: TcpListener,
    filler: TcpStream,
}

impl Early {
    fn begin(road: Road) -> Result<Self, Fault> {
        const PATIENCE: Duration = Duration::from_millis(2_500);
        let listener = road.listen_with(0)?;
        let to = listener.local_addr()?;
        let filler = TcpStream::connect(to)?;
        let near = road.socket()?;
        near.set_nonblocking(true)?;
        match near.connect(&to.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            other => {
                return Err(Fault::Wrong(format!("a full queue said {other:?}")));
            }
        }
        near.set_nonblocking(false)?;
        near.set_read_timeout(Some(paced(PATIENCE)))?;
        Ok(Self {
            near: near.into(),
            listener,
            filler,
        })
    }

    /// Lets it come up, once the call on the near end waits.
    fn accept(self) -> Result<TcpStream, Fault> {
        pause(Duration::from_millis(50));
        drop(self.listener.accept()?);
        drop(self.filler);
        let (far, _) = self.listener.accept()?;
        patient(&far)?;
        Ok(far)
    }
}

/// A read that began before the connection was up.
pub(super) fn early_read(road: Road) -> Result<(), Fault> {
    let early = Early::begin(road)?;
    let near = early.near.try_clone()?;
    let reader = std::thread::spawn(move || -> Result<(), Fault> {
        let mut byte = [0];
        match Read::read(&mut &near, &mut byte) {
            Ok(1) => Ok(()),
            other => Err(Fault::Wrong(format!(
                "a read that waited for the connection: {other:?}"
            ))),
        }
    });
    let far = early.accept()?;
    write(&far, b"!")?;
    let read = reader.join();
    drop(far);
    read.map_err(|_| Fault::Wrong("the reader ended by a panic".to_owned()))?
}

/// A write that began before the connection was up goes through TCP, and so
/// must all that follow it.
pub(super) fn early_write(road: Road) -> Result<(), Fault> {
    let early = Early::begin(road)?;
    let near = early.near.try_clone()?;
    let writer = std::thread::spawn(move || -> Result<TcpStream, Fault> {
        for part in ["one ", "two ", "three "] {
            write(&near, part.as_bytes())?;
        }
        Ok(near)
    });
    let far = early.accept()?;
    let written = writer.join();
    // Only what stands in both queues at once can be read in the wrong order.
    pause(Duration::from_millis(50));
    expect_text(&far, "one two three ")?;
    written
        .map_err(|_| Fault::Wrong("the writer ended by a panic".to_owned()))?
        .map(drop)
}

pub(super) fn multishot(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    let mut receive = MultishotReceive::begin(&far)?;
    let writer = std::thread::spawn(move || -> Result<(), Fault> {
        for part in 0..20_u8 {
            write(&near, &[part; 100])?;
            pause(Duration::from_millis(u64::from(part % 3)));
        }
        Ok(())
    });
    let wanted: Vec<u8> = (0..20_u8).flat_map(|part| [part; 100]).collect();
    let mut got = Vec::new();
    loop {
        let more = receive.wait()?;
        if more.is_empty() {
            break;
        }
        got.extend(more);
    }
    // Its error, if any, shows in what arrived.
    let _written = writer.join();
    expect(got == wanted, || {
        format!(
            "{} of {} bytes arrived, or in another order",
            got.len(),
            wanted.len()
        )
    })
}

pub(super) fn ktls(road: Road) -> Result<(), Fault> {
    /// `TLS_TX`, and `struct tls12_crypto_info_aes_gcm_128`: version 1.2, the
    /// cipher, then iv, key, salt and sequence number.
    const TLS_TX: libc::c_int = 1;
    const SOL_TLS: libc::c_int = 282;
    const HEADER: usize = 5;
    let mut keys = [0_u8; 40];
    keys[..4].copy_from_slice(&[0x03, 0x03, 51, 0]);
    let Pair { near, far } = road.pair()?;
    calls::set_option(&near, libc::IPPROTO_TCP, libc::TCP_ULP, b"tls")?;
    calls::set_option(&near, SOL_TLS, TLS_TX, &keys)?;
    write(&near, b"secret")?;
    let record = read_some(&far, HEADER)?;
    expect(record[..3.min(record.len())] == [23, 3, 3], || {
        "bytes left a kTLS socket unencrypted".to_owned()
    })
}
