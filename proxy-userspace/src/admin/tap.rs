//! The endless answer of `GET /v1/tap`: one JSON line for each request,
//! connection and denial.
//!
//! Owns what a slow reader gets: it loses lines and is told how many. Must
//! never hold back whoever writes the lines.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::{mpsc, watch};

use super::serve::stopped;
use crate::telemetry::{Tap, Tapped, Telemetry};

/// Lines between the broadcast and the socket; the broadcast itself holds the rest.
const LINES_AHEAD: usize = 64;

/// Where lines and the call graph come from.
pub trait Observations: Send + Sync + 'static {
    /// From now on, each line of the access log and each denial: JSON, no line end.
    fn tap(&self) -> Tap;
    /// The call graph.
    fn graph_json(&self) -> serde_json::Value;
    /// The call graph for Graphviz.
    fn graph_dot(&self) -> String;
}

impl Observations for Telemetry {
    fn tap(&self) -> Tap {
        Self::tap(self)
    }

    fn graph_json(&self) -> serde_json::Value {
        serde_json::to_value(self.graph()).expect("texts and numbers always serialise")
    }

    fn graph_dot(&self) -> String {
        self.graph().to_dot()
    }
}

/// A body that goes on until the reader or the daemon ends it.
#[derive(Debug)]
pub(super) struct TapBody {
    lines: mpsc::Receiver<Bytes>,
}

impl TapBody {
    /// Starts handing on `lines`. Ends when `stop` turns true or its sender is gone.
    pub(super) fn start(lines: Tap, stop: watch::Receiver<bool>) -> Self {
        let (sender, receiver) = mpsc::channel(LINES_AHEAD);
        tokio::spawn(hand_on(lines, sender, stop));
        Self { lines: receiver }
    }
}

impl Body for TapBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let line = ready!(self.lines.poll_recv(context));
        Poll::Ready(line.map(|line| Ok(Frame::data(line))))
    }
}

async fn hand_on(mut lines: Tap, sender: mpsc::Sender<Bytes>, mut stop: watch::Receiver<bool>) {
    loop {
        let line = tokio::select! {
            () = sender.closed() => return,
            () = stopped(&mut stop) => return,
            line = lines.recv() => line,
        };
        let text = match line {
            Some(Tapped::Line(line)) => format!("{line}\n"),
            Some(Tapped::Missed(lost)) => format!("{{\"lost\":{lost}}}\n"),
            None => return,
        };
        tokio::select! {
            sent = sender.send(text.into()) => if sent.is_err() { return },
            () = stopped(&mut stop) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;
    use tokio::sync::broadcast;

    use super::*;

    async fn next(body: &mut TapBody) -> Option<String> {
        let data = body.frame().await?.unwrap().into_data().unwrap();
        Some(String::from_utf8(data.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_what_it_lost() {
        let (lines, receiver) = broadcast::channel::<Arc<str>>(4);
        let (_stop, stopped) = watch::channel(false);
        for number in 0..10 {
            lines.send(format!("{number}").into()).unwrap();
        }
        let mut body = TapBody::start(receiver.into(), stopped);
        assert_eq!(next(&mut body).await.unwrap(), "{\"lost\":6}\n");
        assert_eq!(next(&mut body).await.unwrap(), "6\n");
    }

    #[tokio::test]
    async fn it_ends_with_the_daemon() {
        let (_lines, receiver) = broadcast::channel::<Arc<str>>(4);
        let (stop, stopped) = watch::channel(false);
        let mut body = TapBody::start(receiver.into(), stopped);
        stop.send_replace(true);
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test]
    async fn nothing_is_left_running_when_the_reader_goes() {
        let (lines, receiver) = broadcast::channel::<Arc<str>>(4);
        let (_stop, stopped) = watch::channel(false);
        drop(TapBody::start(receiver.into(), stopped));
        while lines.receiver_count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
