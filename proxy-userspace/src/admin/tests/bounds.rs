//! Requests that are too large, too many, or by somebody else.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Sends `text` as it is and reads until the daemon closes.
async fn raw(daemon: &Daemon, text: &str) -> String {
    let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _reset = tokio::time::timeout(Duration::from_secs(5), read)
        .await
        .expect("an answer in time");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_body_too_large_is_refused_before_it_is_read() {
    let daemon = Daemon::start().await;
    let head = format!(
        "POST /v1/apply HTTP/1.1\r\nhost: w\r\ncontent-length: {}\r\n\r\n",
        BODY_MAX + 1
    );
    let answer = raw(&daemon, &head).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
}

#[tokio::test]
async fn a_body_of_unsaid_length_is_cut_off_at_the_bound() {
    let daemon = Daemon::start().await;
    let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
    stream
        .write_all(b"POST /v1/apply HTTP/1.1\r\nhost: w\r\ntransfer-encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let chunk = [b"100000\r\n".as_slice(), &vec![b'#'; 1 << 20], b"\r\n"].concat();
    for _ in 0..=BODY_MAX >> 20 {
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_head_too_large_and_nonsense_are_refused() {
    let daemon = Daemon::start().await;
    let long = format!(
        "GET /v1/status HTTP/1.1\r\nhost: w\r\nx: {}\r\n\r\n",
        "x".repeat(128 << 10)
    );
    let answer = raw(&daemon, &long).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let answer = raw(&daemon, "\u{16}\u{3}\u{1}\u{2}rubbish\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    daemon.get("/v1/status").await.json(StatusCode::OK);
}

#[tokio::test]
async fn a_connection_too_many_gets_an_answer_and_the_other_socket_is_unharmed() {
    let daemon = Daemon::start().await;
    let observer = daemon.options.observer();
    let mut taps = Vec::new();
    for _ in 0..64 {
        taps.push(request(&observer, "GET", "/v1/tap", None, "").await);
    }
    let mut stream = UnixStream::connect(&observer).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    daemon.get("/v1/status").await.json(StatusCode::OK);
    drop(taps);
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut stream = UnixStream::connect(&observer).await.unwrap();
        stream
            .write_all(b"GET /v1/status HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        if answer.starts_with("HTTP/1.1 200 ") {
            return;
        }
    }
    panic!("the places of closed connections are not given back");
}

#[tokio::test]
async fn a_slow_tap_loses_lines_and_is_told() {
    let daemon = Daemon::start().await;
    let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
    stream
        .write_all(b"GET /v1/tap HTTP/1.1\r\nhost: w\r\n\r\n")
        .await
        .unwrap();
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("\r\n\r\n") {
        stream.read_buf(&mut text).await.unwrap();
    }
    let line: Arc<str> = format!("\"{}\"", "x".repeat(4096)).into();
    for _ in 0..1000 {
        daemon.lines.send(Arc::clone(&line)).unwrap();
        tokio::task::yield_now().await;
    }
    let until = async {
        while !String::from_utf8_lossy(&text).contains("{\"lost\":") {
            stream.read_buf(&mut text).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(5), until)
        .await
        .expect("told in time");
}
