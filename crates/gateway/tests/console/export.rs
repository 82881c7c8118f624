//! The log in formats of others, through a session: permitted, recorded, whole or broken off.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use curfew_export::{Chunks, Format, LogReader, Packing, Source, range};
use curfew_gateway::control::{self, Operation, Outcome};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use crate::device::approved;
use crate::kit::{POLICY, PORTAL, World, ledger};

/// A busy machine has this long for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a checkpoint covers so many entries.
async fn signed(world: &World, size: u64) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while range::checkpoint(&world.gateway.ledger()).is_none_or(|signed| signed.size < size) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("a checkpoint");
}

/// What an export of the files gives.
fn offline(world: &World, range: std::ops::Range<u64>, format: Format) -> Vec<u8> {
    let reader = LogReader::open(&world.gateway.ledger()).unwrap();
    let source = Source::of("curfew.test/log");
    let mut chunks = Chunks::new(
        &reader,
        range,
        format,
        Packing::Plain,
        source,
        curfew_authority::Auditor::sessions_kept,
    )
    .unwrap();
    let mut whole = Vec::new();
    while let Some(piece) = chunks.piece().unwrap() {
        whole.extend(piece);
    }
    whole
}

/// The newest export's own entry, by its index.
fn own(world: &World) -> (usize, Value) {
    let entries = ledger(world);
    let is_export = |entry: &Value| {
        let told = entry["search"].as_str().unwrap_or_default();
        entry["kind"] == "action.allowed" && told.starts_with("export=")
    };
    let index = entries.iter().rposition(is_export).unwrap();
    (index, entries[index].clone())
}

/// How the export of this entry ended, once it has.
async fn closed(world: &World, action: usize) -> Value {
    let find = async {
        loop {
            let entries = ledger(world);
            let ended = entries
                .into_iter()
                .find(|entry| entry["kind"] == "action.closed" && entry["action"] == action);
            match ended {
                Some(ended) => return ended,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, find).await.expect("its end")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_what_the_files_give_as_far_as_they_are_signed_and_is_recorded() {
    let world = World::start().await;
    let mut ada = world.signed_in("ada").await;
    let mut cli = approved(&world, &mut ada).await;
    signed(&world, 4).await;
    for format in Format::ALL {
        let path = format!("/api/v1/log/export?format={}&from=1", format.as_str());
        let answer = cli.get(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        let place = |name| answer.header(name).parse::<u64>().unwrap();
        let (from, to) = (place("curfew-from"), place("curfew-to"));
        let checkpoint = range::checkpoint(&world.gateway.ledger()).unwrap();
        assert!(from == 1 && to >= 4 && to <= checkpoint.size, "{from} {to}");
        assert!(answer.bytes == offline(&world, from..to, format), "{path}");
        assert_eq!(answer.header("content-type"), format.media_type());
        assert_eq!(answer.header("cache-control"), "no-store");

        let (index, entry) = own(&world);
        assert!(
            u64::try_from(index).unwrap() >= to,
            "recorded before it is read"
        );
        let told = format!("export={} from=1", format.as_str());
        assert_eq!(
            (&entry["search"], &entry["verb"]),
            (&told.into(), &"log.read".into())
        );
        let closed = closed(&world, index).await;
        assert_eq!(closed["by"], "upstream", "{closed}");
        assert_eq!(closed["bytes_out"], answer.bytes.len());
    }
    let none = cli.get("/api/v1/log/export?format=csv&from=3&to=3").await;
    assert_eq!((none.status, none.body.as_str()), (StatusCode::OK, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_packed_for_those_who_take_that() {
    let world = World::start().await;
    let mut ada = world.signed_in("ada").await;
    let mut cli = approved(&world, &mut ada).await;
    signed(&world, 4).await;
    let accept = [("accept-encoding", "br, gzip")];
    let get = http::Method::GET;
    let path = "/api/v1/log/export?format=ocsf&to=4";
    let answer = cli.send(get.clone(), path, &[], &accept).await;
    assert_eq!(answer.header("content-encoding"), "gzip");
    let mut plain = Vec::new();
    let mut packed = flate2::read::GzDecoder::new(&*answer.bytes);
    packed.read_to_end(&mut plain).unwrap();
    assert!(plain == offline(&world, 0..4, Format::Ocsf));
    let path = "/api/v1/log/export?format=parquet&to=4";
    let answer = cli.send(get, path, &[], &accept).await;
    assert_eq!(
        answer.header("content-encoding"),
        "",
        "it is packed already"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_read_the_log_may_not_export_it_and_odd_questions_are_told() {
    let world = World::start().await;
    let mut bob = world.signed_in("bob").await;
    let mut bobs = approved(&world, &mut bob).await;
    let path = "/api/v1/log/export?format=csv";
    assert_eq!(bobs.get(path).await.status, StatusCode::FORBIDDEN);
    bobs.bearer = None;
    assert_eq!(bobs.get(path).await.status, StatusCode::UNAUTHORIZED);
    let mut ada = world.signed_in("ada").await;
    let mut cli = approved(&world, &mut ada).await;
    for (query, told) in [
        ("", "format"),
        ("?format=xml", "xml"),
        ("?format=csv&from=soon", "from: `soon`"),
        ("?format=csv&unsigned=1", "unsigned"),
    ] {
        let answer = cli.get(&format!("/api/v1/log/export{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert!(answer.body.contains(told), "{}", answer.body);
    }
    let exports = ledger(&world)
        .iter()
        .filter(|entry| entry["kind"] == "action.allowed" && entry.get("search").is_some())
        .count();
    assert_eq!(exports, 0, "nothing was read");
}

/// Makes the log longer than everything between the gateway and a client holds.
async fn lengthen(world: &World) -> u64 {
    let padding = "// nothing that matters, though long\n".repeat(1_200);
    let socket = world.gateway.ledger().with_file_name("control.sock");
    for round in 0..250 {
        let load = Operation::PolicyLoad {
            name: "policy.cedar".into(),
            text: format!("{POLICY}// {round}\n{padding}"),
        };
        let done = control::request(&socket, &load).await.unwrap();
        assert!(matches!(done, Outcome::Done), "{done:?}");
    }
    let size = ledger(world).len() as u64;
    signed(world, size).await;
    size
}

/// An export by a client with little room, which has read its head.
async fn slow(world: &World, bearer: &str) -> http::Response<Incoming> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let web: SocketAddr = world.gateway.running.web;
    let stream = socket.connect(web).await.unwrap();
    let tls = TlsConnector::from(Arc::clone(&world.gateway.tls));
    let stream = tls.connect(ServerName::try_from(PORTAL).unwrap(), stream);
    let io = TokioIo::new(stream.await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/api/v1/log/export?format=ocsf")
        .header(header::HOST, format!("{PORTAL}:{}", web.port()))
        .header(header::AUTHORIZATION, format!("Bearer {bearer}"))
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    sender.send_request(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_breaks_off_when_its_session_ends_and_never_looks_whole() {
    let world = World::start().await;
    let size = lengthen(&world).await;
    let whole = offline(&world, 0..size, Format::Ocsf).len() as u64;
    assert!(whole > 10_000_000, "{whole}");
    let mut ada = world.signed_in("ada").await;
    let mut cli = approved(&world, &mut ada).await;
    let bearer = cli.bearer.clone().unwrap();

    // One that goes away is told as that.
    drop(slow(&world, &bearer).await);
    let (index, _) = own(&world);
    assert_eq!(closed(&world, index).await["by"], "client");

    let mut answers = Vec::new();
    for _ in 0..4 {
        let answer = slow(&world, &bearer).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answers.push(answer);
    }
    let busy = slow(&world, &bearer).await;
    assert_eq!(busy.status(), StatusCode::TOO_MANY_REQUESTS);
    drop(busy);

    let exports: Vec<usize> = {
        let entries = ledger(&world);
        let told = |entry: &Value| entry["search"] == "export=ocsf";
        let found = entries.iter().enumerate().filter(|(_, entry)| told(entry));
        found.map(|(index, _)| index).skip(1).take(4).collect()
    };
    let over = cli
        .send(http::Method::POST, "/api/v1/sign-out", &[], &[])
        .await;
    assert_eq!(over.status, StatusCode::NO_CONTENT, "{}", over.body);
    for index in exports {
        let closed = closed(&world, index).await;
        assert_eq!(closed["by"], "session_end", "{closed}");
        assert!(closed["bytes_out"].as_u64().unwrap() < whole, "{closed}");
    }
    for answer in answers {
        let mut body = answer.into_body();
        let (mut came, mut broken) = (0_u64, false);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => came += frame.data_ref().map_or(0, |data| data.len() as u64),
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        assert!(broken, "it looked whole after {came} of {whole} bytes");
        assert!(came < whole);
    }
}

/// The row of an entry in CSV, by the names of its columns.
fn row(csv: &str, index: usize) -> std::collections::BTreeMap<String, String> {
    let mut lines = csv::Reader::from_reader(csv.as_bytes());
    let names = lines.headers().unwrap().clone();
    let rows = lines.records().map(Result::unwrap);
    let found = rows.map(|row| {
        let cells = names.iter().zip(row.iter());
        cells
            .map(|(name, cell)| (name.to_owned(), cell.to_owned()))
            .collect::<std::collections::BTreeMap<_, _>>()
    });
    let wanted = index.to_string();
    found
        .into_iter()
        .find(|row| row["index"] == wanted)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn concealed_values_are_exported_to_those_who_may_see_them_and_recorded_as_revealed() {
    let world = crate::values::concealing().await;
    let mut bob = world.signed_in("bob").await;
    assert_eq!(bob.get("/sessions").await.status, StatusCode::OK);
    let mut ada = world.signed_in("ada").await;
    let mut cli = approved(&world, &mut ada).await;
    let listed = |entry: &Value| entry["verb"] == "session.list";
    let index = ledger(&world).iter().rposition(listed).unwrap();
    signed(&world, index as u64 + 1).await;

    let plain = cli.get("/api/v1/log/export?format=csv").await;
    let told = row(&plain.body, index);
    assert!(told["path"].starts_with("commitment:"), "{told:?}");
    let path = "/api/v1/log/export?format=csv&reveal=true";
    let opened = cli.get(path).await;
    let shown = row(&opened.body, index);
    assert_eq!(shown["path"], "/sessions");
    assert_eq!(shown["entry"], told["entry"], "as it stands in the log");

    // Both rights, each with an entry of its own that ends.
    let entries = ledger(&world);
    for verb in ["log.read", "log.reveal"] {
        let index = entries
            .iter()
            .rposition(|entry| entry["verb"] == verb && entry["kind"] == "action.allowed")
            .unwrap();
        let closed = closed(&world, index).await;
        assert_eq!(closed["bytes_out"], opened.bytes.len(), "{verb}");
        assert!(entries[index]["concealed"]["search"].is_string());
    }

    // An erasure is in force at once, in the middle of the file that was read too.
    let mut cyd = world.signed_in("cyd").await;
    crate::erasures::erased(&mut ada, &mut cyd, "bob").await;
    let gone = row(&cli.get(path).await.body, index);
    let commitment = told["path"].strip_prefix("commitment:").unwrap();
    assert_eq!(gone["path"], format!("erased:{commitment}"));
}
