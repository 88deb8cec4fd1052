use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::{LogSink, Options};
use super::*;

async fn start(health: Result<(), String>) -> std::net::SocketAddr {
    let telemetry = Telemetry::start(&Options {
        log: LogSink::Off,
        ..Options::default()
    })
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, telemetry, Arc::new(move || health.clone())));
    address
}

async fn ask(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn get(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{more}\r\n")
}

#[tokio::test]
async fn metrics_come_in_the_format_asked_for() {
    let address = start(Ok(())).await;
    let old = ask(address, &get("/metrics", "")).await;
    assert!(old.starts_with("HTTP/1.1 200 OK\r\n"), "{old}");
    assert!(old.contains("content-type: text/plain; version=0.0.4"));
    assert!(!old.contains("# EOF"));
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let open = ask(address, &get("/metrics", accept)).await;
    assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(open.ends_with("# EOF\n"));
}

#[tokio::test]
async fn health_is_told_truly() {
    let well = start(Ok(())).await;
    assert!(
        ask(well, &get("/healthz", ""))
            .await
            .ends_with("\r\n\r\nok\n")
    );
    let ill = start(Err("the heartbeat stopped".into())).await;
    let answer = ask(ill, &get("/healthz", "")).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nthe heartbeat stopped\n"));
}

#[tokio::test]
async fn other_requests_are_refused() {
    let address = start(Ok(())).await;
    assert!(
        ask(address, &get("/", ""))
            .await
            .starts_with("HTTP/1.1 404 ")
    );
    let post = get("/metrics", "").replace("GET", "POST");
    let answer = ask(address, &post).await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD"));
}

#[tokio::test]
async fn silent_connections_are_bounded_in_number() {
    let address = start(Ok(())).await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let request = get("/healthz", "");
    let mut asked = std::pin::pin!(ask(address, &request));
    let wait = Duration::from_millis(200);
    assert!(
        tokio::time::timeout(wait, &mut asked).await.is_err(),
        "it waits"
    );
    silent.pop();
    assert!(asked.await.ends_with("ok\n"), "its turn came");
}
