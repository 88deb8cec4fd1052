use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record};
use tokio::net::UdpSocket;

use super::*;

/// A name server on loopback, as small as it gets.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

/// What it says to the n-th query, from 0.
type Script = fn(usize, &str, RecordType) -> Answer;

enum Answer {
    Addresses(Vec<IpAddr>),
    Code(ResponseCode),
    Late(Duration, Vec<IpAddr>),
    Silence,
}

impl Server {
    async fn start(script: Script) -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let query = Message::from_vec(&buffer[..length]).unwrap();
                let n = count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(answer(socket.clone(), client, query, n, script));
            }
        });
        Self { address, asked }
    }

    fn names(&self) -> Names {
        Names::with_servers(&[self.address]).unwrap()
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn answer(
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    query: Message,
    n: usize,
    script: Script,
) {
    let question = query.queries[0].clone();
    let name = question.name().to_ascii().to_ascii_lowercase();
    let mut response = Message::response(query.metadata.id, OpCode::Query);
    response.metadata.recursion_available = true;
    response.add_query(question.clone());
    let addresses = match script(n, &name, question.query_type()) {
        Answer::Addresses(addresses) => addresses,
        Answer::Late(delay, addresses) => {
            tokio::time::sleep(delay).await;
            addresses
        }
        Answer::Code(code) => {
            response.metadata.response_code = code;
            Vec::new()
        }
        Answer::Silence => return,
    };
    for address in addresses {
        response.add_answer(Record::from_rdata(
            question.name().clone(),
            60,
            RData::from(address),
        ));
    }
    socket
        .send_to(&response.to_vec().unwrap(), client)
        .await
        .unwrap();
}

fn host(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn both_families_are_asked_for_and_remembered() {
    let server = Server::start(|_, name, kind| match (name, kind) {
        ("a.example.", RecordType::A) => Answer::Addresses(vec![ip("192.0.2.1"), ip("192.0.2.2")]),
        ("a.example.", RecordType::AAAA) => Answer::Addresses(vec![ip("2001:db8::1")]),
        _ => Answer::Code(ResponseCode::NXDomain),
    })
    .await;
    let names = server.names();
    for _ in 0..3 {
        for (address, expected) in [
            ("192.0.2.1", true),
            ("192.0.2.2", true),
            ("::ffff:192.0.2.2", true),
            ("192.0.2.3", false),
            ("2001:db8::1", true),
            ("2001:db8::2", false),
        ] {
            let answer = names.contains(&host("A.example"), ip(address)).await;
            assert_eq!(answer, Ok(expected), "{address}");
        }
    }
    assert_eq!(server.asked(), 2, "once for each family");
}

#[tokio::test]
async fn an_unknown_name_is_an_error_and_briefly_remembered() {
    let server = Server::start(|_, _, _| Answer::Code(ResponseCode::NXDomain)).await;
    let names = server.names();
    for _ in 0..3 {
        let answer = names.contains(&host("no.example"), ip("192.0.2.1")).await;
        assert_eq!(answer, Err(NameError::NoSuchName));
    }
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn a_name_without_addresses_contains_none() {
    let server = Server::start(|_, _, _| Answer::Addresses(vec![])).await;
    let answer = server
        .names()
        .contains(&host("a.example"), ip("192.0.2.1"))
        .await;
    assert_eq!(answer, Ok(false));
}

#[tokio::test]
async fn a_server_that_fails_is_an_error_and_may_recover() {
    let server = Server::start(|n, _, _| match n {
        0 | 1 => Answer::Code(ResponseCode::ServFail),
        _ => Answer::Addresses(vec![ip("192.0.2.1")]),
    })
    .await;
    let names = server.names();
    let answer = names.contains(&host("a.example"), ip("192.0.2.1")).await;
    assert!(matches!(answer, Err(NameError::Failed(_))), "{answer:?}");
    tokio::time::sleep(ASK_PAUSE).await;
    let answer = names.contains(&host("a.example"), ip("192.0.2.1")).await;
    assert_eq!(answer, Ok(true));
}

#[tokio::test]
async fn a_silent_server_costs_no_more_than_the_limit() {
    let server = Server::start(|_, _, _| Answer::Silence).await;
    let names = server.names();
    let start = Instant::now();
    let (name, address) = (host("a.example"), ip("192.0.2.1"));
    let (one, two) = tokio::join!(
        names.contains(&name, address),
        names.contains(&name, address)
    );
    assert_eq!(
        (one, two),
        (Err(NameError::TimedOut), Err(NameError::TimedOut))
    );
    assert!(start.elapsed() < LOOKUP_TIME_MAX + Duration::from_millis(500));
    let again = Instant::now();
    assert_eq!(
        names.contains(&name, address).await,
        Err(NameError::TimedOut)
    );
    assert!(
        again.elapsed() < Duration::from_millis(100),
        "not asked again at once"
    );
}

#[tokio::test]
async fn no_server_at_all_is_an_error() {
    let names = Names::with_servers(&[]).unwrap();
    let answer = names.contains(&host("a.example"), ip("192.0.2.1")).await;
    assert!(answer.is_err());
}

#[tokio::test]
async fn many_who_ask_at_once_make_one_query() {
    let server =
        Server::start(|_, _, _| Answer::Late(Duration::from_millis(100), vec![ip("192.0.2.1")]))
            .await;
    let names = Arc::new(server.names());
    let askers: Vec<_> = (0..50)
        .map(|_| {
            let names = names.clone();
            tokio::spawn(async move { names.contains(&host("a.example"), ip("192.0.2.1")).await })
        })
        .collect();
    for asker in askers {
        assert_eq!(asker.await.unwrap(), Ok(true));
    }
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn who_gives_up_does_not_hold_up_the_others() {
    let server = Server::start(|n, _, _| match n {
        0 => Answer::Silence,
        _ => Answer::Addresses(vec![ip("192.0.2.1")]),
    })
    .await;
    let names = Arc::new(server.names());
    let impatient = names.clone();
    let impatient = tokio::spawn(async move {
        impatient
            .contains(&host("a.example"), ip("192.0.2.1"))
            .await
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    impatient.abort();
    let answer = names.contains(&host("a.example"), ip("192.0.2.1")).await;
    assert_eq!(answer, Ok(true));
}

#[tokio::test]
async fn changing_answers_are_joined() {
    let server = Server::start(|n, _, _| {
        Answer::Addresses(vec![[192, 0, 2, u8::try_from(n).unwrap() + 1].into()])
    })
    .await;
    let names = server.names();
    let name = host("a.example");
    assert_eq!(names.contains(&name, ip("192.0.2.1")).await, Ok(true));
    assert_eq!(
        names.contains(&name, ip("192.0.2.2")).await,
        Ok(false),
        "asked just now"
    );
    tokio::time::sleep(ASK_PAUSE).await;
    assert_eq!(
        names.contains(&name, ip("192.0.2.2")).await,
        Ok(true),
        "asked again"
    );
    assert_eq!(
        names.contains(&name, ip("192.0.2.1")).await,
        Ok(true),
        "still counts"
    );
}

#[test]
fn runtimes_of_several_threads_share_one() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let control = runtime();
    let script: Script = |_, _, _| Answer::Addresses(vec![ip("192.0.2.1")]);
    let server = control.block_on(Server::start(script));
    let names = server.names();
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..3)
            .map(|n| {
                let names = &names;
                scope.spawn(move || {
                    runtime().block_on(async {
                        let own = host(&format!("a{n}.example"));
                        let common = host("a.example");
                        let own = names.contains(&own, ip("192.0.2.1")).await;
                        (own, names.contains(&common, ip("192.0.2.2")).await)
                    })
                })
            })
            .collect();
        control.block_on(async { tokio::time::sleep(Duration::from_millis(500)).await });
        for asker in askers {
            assert_eq!(asker.join().unwrap(), (Ok(true), Ok(false)));
        }
    });
    assert_eq!(server.asked(), 4);
}

#[test]
fn addresses_expire_after_their_grace() {
    let slot = Slot::default();
    let day = Duration::from_hours(24);
    slot.learn(&Ok(vec![
        (ip("192.0.2.1"), Duration::ZERO),
        (ip("192.0.2.2"), day),
    ]));
    let known = lock(&slot.known);
    let now = Instant::now();
    let counts = |address, after| known.contains(ip(address), now + after);
    assert!(counts("192.0.2.1", GRACE / 2) && !counts("192.0.2.1", GRACE));
    assert!(counts("192.0.2.2", TTL_MAX) && !counts("192.0.2.2", TTL_MAX + GRACE));
}

#[test]
fn addresses_of_a_name_are_bounded() {
    let slot = Slot::default();
    for n in 0..1024_u16 {
        let [high, low] = n.to_be_bytes();
        slot.learn(&Ok(vec![([10, 0, high, low].into(), Duration::ZERO)]));
    }
    let known = lock(&slot.known);
    assert_eq!(known.addresses.len(), ADDRESSES_MAX);
    assert!(
        known.contains(ip("10.0.3.255"), Instant::now()),
        "the last is there"
    );
}

#[test]
fn names_are_bounded_and_those_in_use_stay() {
    let table = Table::default();
    let used = table.slot(&host("used.example")).unwrap();
    let known = table.slot(&host("known.example")).unwrap();
    known.learn(&Ok(vec![(ip("192.0.2.1"), Duration::ZERO)]));
    drop(known);
    for n in 0..2 * NAMES_MAX {
        assert!(table.slot(&host(&format!("a{n}.example"))).is_some());
    }
    let slots = lock(&table.0);
    assert!(slots.len() <= NAMES_MAX);
    assert!(Arc::ptr_eq(&slots[&host("used.example")], &used));
    assert!(slots.contains_key(&host("known.example")));
}

#[test]
fn a_table_full_of_names_in_use_is_busy() {
    let table = Table::default();
    let held: Vec<_> = (0..NAMES_MAX)
        .map(|n| table.slot(&host(&format!("a{n}.example"))).unwrap())
        .collect();
    assert!(table.slot(&host("one-more.example")).is_none());
    drop(held);
    assert!(table.slot(&host("one-more.example")).is_some());
}
