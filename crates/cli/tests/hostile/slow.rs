//! Those who take their time: nobody has more than ten seconds to say who they are.

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::kit::{Watch, push, until_closed};
use crate::stage::API;

/// The stated limit is ten seconds, and it takes the refusal half a second to be told.
const EARLIEST: Duration = Duration::from_secs(9);
const LATEST: Duration = Duration::from_secs(13);

/// Sends these bytes, one every 100 ms, and then waits. Tells how long it was borne.
async fn drip(what: &str, stream: impl AsyncRead + AsyncWrite + Unpin + Send, bytes: &[u8]) {
    let start = Instant::now();
    let (mut read, mut write) = tokio::io::split(stream);
    let dripping = async {
        for byte in bytes {
            if !push(&mut write, &[*byte]).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        std::future::pending::<()>().await;
    };
    let reading = async {
        let wait = tokio::time::timeout(LATEST, until_closed(&mut read, LATEST * 2));
        assert!(wait.await.is_ok(), "{what} is not closed");
    };
    tokio::select! {
        () = dripping => {}
        () = reading => {}
    }
    let borne = start.elapsed();
    assert!(borne > EARLIEST, "{what} had only {borne:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_longer_than_ten_seconds_is_dropped() {
    let watch = Watch::begin("slow").await;
    let startup = [&[0, 0, 0x20, 0, 0, 3, 0, 0][..], &[b'u'; 8_000]].concat();
    let header = format!("GET / HTTP/1.1\r\nHost: {API}\r\nh: {}", "x".repeat(8_000));
    let tls_hello = [&[0x16, 3, 1, 2, 0, 1][..], &[0; 500]].concat();
    let stream = watch.postgres().await;
    let postgres_tls = watch.tls(stream, b"postgresql").await;
    tokio::join!(
        drip("a silent database client", watch.postgres().await, b""),
        drip("a slow startup", watch.postgres().await, &startup),
        drip("a slow startup over TLS", postgres_tls, &startup),
        drip(
            "a slow handshake of a database client",
            watch.postgres().await,
            &tls_hello
        ),
        drip("a silent web client", watch.web().await, b""),
        drip("a slow handshake", watch.web().await, &tls_hello),
        drip("a client silent after TLS", watch.http1().await, b""),
        drip("a slow header", watch.http1().await, header.as_bytes()),
        drip(
            "a slow HTTP/2 preface",
            watch.tls(watch.web().await, b"h2").await,
            b"PRI * HT"
        ),
    );
    watch.unharmed("slow senders").await;
}
