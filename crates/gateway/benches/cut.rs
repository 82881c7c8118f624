//! How late cuts are: from the deadline to the moment the client has its last words.
//!
//! Everything is real: a gateway over TLS on loopback, a PostgreSQL behind it, one session for
//! each connection, deadlines some milliseconds apart. Client and gateway share one clock, so
//! lateness is read directly. PostgreSQL's own `idle_session_timeout` runs in the same minute.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    dead_code,
    missing_docs,
    unused_imports,
    reason = "a benchmark: what is wrong should stop it at once"
)]

#[path = "../tests/postgres/kit/mod.rs"]
mod kit;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use curfew_entry::{Entry, Event, SessionId, Timestamp};
use curfew_ledger::LogReader;
use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use kit::{Person, Server, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Cuts of each kind.
const CUTS: usize = 200;
/// Connections at once. 50 times `APART` is 1.2 s: all are open and quiet before the first cut.
const WAVE: usize = 50;
/// Between two sign-ins of a wave, so that their deadlines are apart.
const APART: Duration = Duration::from_millis(23);
/// Every limit that is to run out, where `--limit` does not say otherwise.
const LIMIT: Duration = Duration::from_secs(5);

/// Idle, and the age of the proof under a running query, run out after `limit`.
fn policy(limit: Duration) -> String {
    let limit = limit.as_secs();
    format!(
        r#"
@id("idlers") @idle("{limit}s") @reauth("10m") @lifetime("1h")
permit (principal in Role::"idler", action == Action::"session.start", resource == Resource::"gateway");
@id("runners") @idle("{limit}s") @reauth("{limit}s") @lifetime("1h")
permit (principal in Role::"runner", action == Action::"session.start", resource == Resource::"gateway");
@id("work")
permit (principal, action, resource in Environment::"test");
"#
    )
}

type Tls = TlsStream<TcpStream>;

/// What is cut.
#[derive(Clone, Copy)]
enum Kind {
    WebSocket,
    EventStream,
    IdleSession,
    IdleInTransaction,
    RunningQuery,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::WebSocket,
        Self::EventStream,
        Self::IdleSession,
        Self::IdleInTransaction,
        Self::RunningQuery,
    ];

    const fn role(self) -> &'static str {
        match self {
            Self::RunningQuery => "runner",
            _ => "idler",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::WebSocket => "WebSocket, idle",
            Self::EventStream => "event stream, idle",
            Self::IdleSession => "database, idle",
            Self::IdleInTransaction => "database, idle in transaction",
            Self::RunningQuery => "database, running pg_sleep(60)",
        })
    }
}

/// What may be asked of the benchmark.
#[derive(Parser)]
#[command(name = "cut", about = "How late live traffic is cut")]
struct Arguments {
    /// The limit that runs out, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = LIMIT.as_secs(),
          value_parser = clap::value_parser!(u64).range(2..=600))]
    limit: u64,
    /// Cargo says that this is a benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// Cargo wants to know only that it starts.
    #[arg(long, hide = true)]
    test: bool,
}

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let arguments = Arguments::parse();
    if arguments.test {
        return;
    }
    let limit = Duration::from_secs(arguments.limit);
    let upstream = upstream().await;
    let more = format!(
        "[[web]]\nname = \"app\"\nenvironment = \"test\"\nhost = \"localhost\"\nkind = \"api\"\n\
         upstream = \"http://127.0.0.1:{upstream}\"\n"
    );
    let world = Arc::new(World::with(&policy(limit), &more).await);
    println!("limit {} s, {WAVE} connections at once", limit.as_secs());
    println!(
        "{:<34} {:>5} {:>9} {:>9} {:>9}",
        "lateness of a cut", "cuts", "median", "p99", "worst"
    );
    let mut own = postgres_itself(limit).await;
    let base = row("PostgreSQL idle_session_timeout", &mut own);
    for kind in Kind::ALL {
        let mut late = Vec::with_capacity(CUTS);
        while late.len() < CUTS {
            late.extend(wave(&world, kind).await);
        }
        let median = row(&kind.to_string(), &mut late);
        println!("{:<34} {:>5.2} x PostgreSQL's own", "", median / base);
    }
    std::process::exit(0);
}

/// Prints one row and gives its median in milliseconds.
fn row(name: &str, late: &mut [Duration]) -> f64 {
    late.sort();
    let at = |share: f64| {
        let last = late.len() - 1;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index of a few hundred"
        )]
        let index = (last as f64 * share).round() as usize;
        late[index].as_secs_f64() * 1_000.0
    };
    println!(
        "{name:<34} {:>5} {:>6.3} ms {:>6.3} ms {:>6.3} ms",
        late.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    at(0.5)
}

/// One wave of connections, each cut at its own moment.
async fn wave(world: &Arc<World>, kind: Kind) -> Vec<Duration> {
    let mut cuts = Vec::with_capacity(WAVE);
    for at in 0..WAVE {
        let person = world.person(&format!("p{at}"), kind.role()).await;
        let world = Arc::clone(world);
        cuts.push(tokio::spawn(async move {
            let heard = match kind {
                Kind::WebSocket | Kind::EventStream => {
                    let mut stream = web(&world, kind, &person).await;
                    last_words(&world, &mut stream).await
                }
                _ => database(&world, kind, &person).await,
            };
            (person.session, heard)
        }));
        tokio::time::sleep(APART).await;
    }
    let mut late = Vec::with_capacity(WAVE);
    for cut in cuts {
        let (session, heard) = cut.await.unwrap();
        let deadline = deadline(world, &session).await;
        assert!(heard >= deadline, "never before its time");
        late.push(heard.saturating_since(deadline).as_duration());
    }
    late
}

/// When the session had to end, as the ledger tells it.
async fn deadline(world: &World, ended: &SessionId) -> Timestamp {
    let dir = world.gateway.ledger();
    for _ in 0..100 {
        let reader = LogReader::open(&dir).unwrap();
        let newest = reader.range(reader.size().saturating_sub(2_000)..reader.size());
        for item in newest {
            let (_, bytes) = item.unwrap();
            if let Event::SessionEnded {
                session,
                deadline: Some(at),
                ..
            } = Entry::from_bytes(&bytes).unwrap().event
                && session == *ended
            {
                return at;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the end of {ended} is not in the ledger");
}

async fn web(world: &World, kind: Kind, person: &Person) -> Tls {
    let stream = TcpStream::connect(world.gateway.running.web).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut tls = (*world.gateway.tls).clone();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(tls))
        .connect(name, stream)
        .await
        .unwrap();
    let upgrade = match kind {
        Kind::WebSocket => {
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        }
        _ => "",
    };
    let request = format!(
        "GET /{} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n{upgrade}\r\n",
        if upgrade.is_empty() {
            "events"
        } else {
            "socket"
        },
        person.bearer,
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read_buf(&mut head).await.unwrap();
        assert!(read > 0, "no answer: {}", String::from_utf8_lossy(&head));
    }
    let status = if upgrade.is_empty() {
        "HTTP/1.1 200"
    } else {
        "HTTP/1.1 101"
    };
    assert!(
        head.starts_with(status.as_bytes()),
        "{}",
        String::from_utf8_lossy(&head)
    );
    stream
}

/// A close frame, or the end of the stream.
async fn last_words(world: &World, stream: &mut Tls) -> Timestamp {
    let mut bytes = [0; 4_096];
    loop {
        match stream.read(&mut bytes).await {
            Ok(0) | Err(_) => return world.gateway.running.now(),
            // The server's frames are whole here: an unmasked close frame starts with 0x88.
            Ok(_) if bytes[0] == 0x88 => return world.gateway.running.now(),
            Ok(_) => {}
        }
    }
}

async fn database(world: &World, kind: Kind, person: &Person) -> Timestamp {
    let (client, connection) = world
        .config(person)
        .connect(world.connector())
        .await
        .unwrap();
    let clock = world.gateway.running.registrar().clone();
    let ended = tokio::spawn(async move {
        let _ = connection.await;
        clock.now()
    });
    match kind {
        Kind::IdleInTransaction => client.batch_execute("begin; select 1").await.unwrap(),
        Kind::RunningQuery => {
            let _ = client.simple_query("select pg_sleep(60)").await;
        }
        _ => client.batch_execute("select 1").await.unwrap(),
    }
    ended.await.unwrap()
}

/// PostgreSQL's own timeout, on connections around the gateway.
async fn postgres_itself(limit: Duration) -> Vec<Duration> {
    let mut late = Vec::with_capacity(CUTS);
    while late.len() < CUTS {
        let mut cuts = Vec::with_capacity(WAVE);
        for _ in 0..WAVE {
            let (client, connection) = Server::get().connect().await;
            cuts.push(tokio::spawn(async move {
                let ended = tokio::spawn(async move {
                    let _ = connection.await;
                    Instant::now()
                });
                let set = format!("set idle_session_timeout = '{}ms'", limit.as_millis());
                client.batch_execute(&set).await.unwrap();
                let start = Instant::now();
                let heard = ended.await.unwrap();
                drop(client);
                heard.duration_since(start).saturating_sub(limit)
            }));
            tokio::time::sleep(APART).await;
        }
        for cut in cuts {
            late.push(cut.await.unwrap());
        }
    }
    late
}

/// An app with an endless event stream and a WebSocket that says nothing.
async fn upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let service = hyper::service::service_fn(serve);
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                    .with_upgrades()
                    .await;
            });
        }
    });
    port
}

type UpstreamBody =
    http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, std::convert::Infallible>;

async fn serve(
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<UpstreamBody>, std::convert::Infallible> {
    if request.uri().path() == "/socket" {
        tokio::spawn(async move {
            let mut stream =
                hyper_util::rt::TokioIo::new(hyper::upgrade::on(request).await.unwrap());
            let mut nowhere = [0; 64];
            while matches!(stream.read(&mut nowhere).await, Ok(1..)) {}
        });
        return Ok(http::Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
            .body(http_body_util::Empty::new().boxed_unsync())
            .unwrap());
    }
    let ticks = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let event = bytes::Bytes::from_static(b"data: tick\n\n");
        Some((Ok(hyper::body::Frame::data(event)), ()))
    });
    Ok(http::Response::builder()
        .header("content-type", "text/event-stream")
        .body(StreamBody::new(ticks.boxed()).boxed_unsync())
        .unwrap())
}
