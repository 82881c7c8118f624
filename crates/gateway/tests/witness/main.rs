//! Witnesses over real HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_types,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    unreachable_pub
)]

#[path = "../shared/address.rs"]
mod address;
#[path = "../shared/config.rs"]
mod config;
#[path = "../shared/person.rs"]
mod person;
mod record;
mod rounds;

use std::net::SocketAddr;
use std::path::Path;

use curfew_custody::witness::server::WitnessServer;
use curfew_ledger::merkle::{CompactTree, leaf_hash};
use curfew_ledger::signer::Extends;
use curfew_ledger::witness::{cosigned, file_name, request, told_size};
use curfew_ledger::{Checkpoint, CosignerKey, Hash, LogKey, ReadError, RealDisk, Signer, Witness};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ORIGIN: &str = "example.com/log";

fn key() -> LogKey {
    LogKey::from_seed(ORIGIN, &[1; 32]).unwrap()
}

struct NoProof;

impl Extends for NoProof {
    fn consistency_proof(&self, _size: u64) -> Result<Vec<Hash>, ReadError> {
        Ok(Vec::new())
    }
}

/// A signed checkpoint of so many entries, all of them `text`.
fn note(text: &str, size: u64) -> String {
    let mut tree = CompactTree::new();
    (0..size).for_each(|_| tree.push(leaf_hash(text.as_bytes())));
    let checkpoint = Checkpoint {
        origin: ORIGIN.to_owned(),
        size,
        root: tree.root(),
    };
    key().sign_checkpoint(&checkpoint, &NoProof).unwrap()
}

fn make(dir: &Path) -> Vec<CosignerKey> {
    let keys = Witness::create(&RealDisk, dir, "witness.example").unwrap();
    Witness::trust(&RealDisk, dir, &key().verifier()).unwrap();
    keys
}

async fn serve(dir: &Path) -> SocketAddr {
    let server = WitnessServer::bind(dir, "127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let address = server.address();
    tokio::spawn(async move { server.serve().await });
    address
}

/// Status, head and body of an answer.
async fn send(address: SocketAddr, line: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{line} HTTP/1.1\r\nhost: witness\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    // A body that is too long is answered before it is through.
    let _ = stream.write_all((head + body).as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

async fn add(address: SocketAddr, body: &str) -> (u16, String, String) {
    send(address, "POST /add-checkpoint", body).await
}

#[tokio::test]
async fn a_witness_speaks_http_as_the_specification_says() {
    let folder = tempfile::tempdir().unwrap();
    let keys = make(folder.path());
    let address = serve(folder.path()).await;
    let monitored = format!("GET /{}/checkpoint", file_name(ORIGIN));
    assert_eq!(send(address, &monitored, "").await.0, 404);

    let first = note("entry", 1);
    let (status, _, lines) = add(address, &request(0, &[], &first)).await;
    assert_eq!(status, 200);
    for key in &keys {
        let (_, seconds) = cosigned(key, &first, &lines).unwrap();
        assert!(seconds > 1_600_000_000);
    }
    assert_eq!(
        send(address, &monitored, "").await.2,
        format!("{first}{lines}")
    );

    let (status, head, body) = add(address, &request(0, &[], &note("entry", 2))).await;
    assert_eq!((status, told_size(body.as_bytes())), (409, Some(1)));
    assert!(head.contains("content-type: text/x.tlog.size"), "{head}");
    // The leaf of the same log is the sibling; that of another is not.
    let proof = [leaf_hash(b"entry")];
    let forked = request(1, &proof, &note("fork", 2));
    assert_eq!(add(address, &forked).await.0, 422);
    let going_on = request(1, &proof, &note("entry", 2));
    let altered = going_on.replacen("\n2\n", "\n3\n", 1);
    assert_eq!(add(address, &altered).await.0, 403);
    let unknown = going_on.replace(ORIGIN, "example.com/other");
    assert_eq!(add(address, &unknown).await.0, 404);
    assert_eq!(add(address, "old 1\n").await.0, 400);
    assert_eq!(add(address, &"x".repeat(70_000)).await.0, 413);
    let (status, head, _) = send(address, "GET /add-checkpoint", "").await;
    assert!(status == 405 && head.contains("allow: post"), "{head}");
    assert_eq!(send(address, "GET /", "").await.0, 404);
    assert_eq!(add(address, &going_on).await.0, 200);
}
