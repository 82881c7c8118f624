//! What is not HTTP/1.1, or too much of it.

use crate::kit::{SOON, Watch, push, until_closed};
use crate::stage::API;

/// The status of an answer.
#[track_caller]
fn status(answer: &[u8], after: &str) -> u16 {
    let text = String::from_utf8_lossy(answer);
    let status = text
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    let status = status.unwrap_or_else(|| panic!("{after}: no answer but {text:?}"));
    status.parse().unwrap()
}

type Case = (&'static str, String);

/// Heads that cannot be read in one way.
fn heads(token: &str, host: &str) -> Vec<Case> {
    vec![
        ("no host", format!("GET / HTTP/1.1\r\n{token}\r\n")),
        (
            "two hosts",
            format!("GET / HTTP/1.1\r\n{host}{host}{token}\r\n"),
        ),
        (
            "two different hosts",
            format!("GET / HTTP/1.1\r\n{host}Host: x\r\n{token}\r\n"),
        ),
        (
            "a bad method",
            format!("G@T{{}} / HTTP/1.1\r\n{host}{token}\r\n"),
        ),
        ("no method", format!(" / HTTP/1.1\r\n{host}{token}\r\n")),
        (
            "a bad version",
            format!("GET / HTTP/9.9\r\n{host}{token}\r\n"),
        ),
        (
            "a bad header name",
            format!("GET / HTTP/1.1\r\n{host}{token}a b: c\r\n\r\n"),
        ),
        (
            "a control character",
            format!("GET / HTTP/1.1\r\n{host}{token}a: b\0c\r\n\r\n"),
        ),
        (
            "a folded header",
            format!("GET / HTTP/1.1\r\n{host}{token}a: b\r\n c\r\n\r\n"),
        ),
        (
            "a path with dots",
            format!("GET /a/%2e%2e/b HTTP/1.1\r\n{host}{token}\r\n"),
        ),
    ]
}

/// Bodies whose end cannot be told.
fn bodies(token: &str, host: &str) -> Vec<Case> {
    vec![
        (
            "two lengths",
            format!(
                "POST / HTTP/1.1\r\n{host}{token}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"
            ),
        ),
        (
            "a negative length",
            format!("POST / HTTP/1.1\r\n{host}{token}Content-Length: -1\r\n\r\n"),
        ),
        (
            "a length beyond all numbers",
            format!(
                "POST / HTTP/1.1\r\n{host}{token}Content-Length: 99999999999999999999999\r\n\r\n"
            ),
        ),
        (
            "an unknown coding",
            format!("POST / HTTP/1.1\r\n{host}{token}Transfer-Encoding: zip\r\n\r\n"),
        ),
        (
            "a chunk size beyond all numbers",
            format!(
                "POST / HTTP/1.1\r\n{host}{token}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nhello\r\n0\r\n\r\n"
            ),
        ),
        (
            "a chunk size that is none",
            format!(
                "POST / HTTP/1.1\r\n{host}{token}Transfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n"
            ),
        ),
        (
            "random bytes",
            "\u{1}\u{2}\u{3}\u{fe}\u{ff}\r\n\r\n".repeat(20),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_requests_get_a_400_and_reach_nobody() {
    let watch = Watch::begin("invalid").await;
    let token = format!("Authorization: Bearer {}\r\n", watch.person.bearer);
    let host = format!("Host: {API}\r\n");
    let cases = [heads(&token, &host), bodies(&token, &host)].concat();
    let mut wrong = Vec::new();
    for (what, request) in cases {
        let mut stream = watch.http1().await;
        let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        push(&mut stream, request.as_bytes()).await;
        let answer = until_closed(&mut stream, SOON).await;
        let status = status(&answer, what);
        if status != 400 {
            wrong.push((what, status));
        }
    }
    watch.unharmed("invalid requests").await;
    assert_eq!(wrong, [], "these are not answered with 400");
}

#[tokio::test(flavor = "multi_thread")]
async fn header_floods_are_refused_at_their_limit() {
    let watch = Watch::begin("floods").await;
    let host = format!("GET / HTTP/1.1\r\nHost: {API}\r\n");
    let many: String = (0..200).map(|n| format!("h{n}: v\r\n")).collect();
    let large = format!("h: {}\r\n", "x".repeat(1_024 * 1_024));
    for (what, flood) in [("200 headers", many), ("a header of 1 MiB", large)] {
        let mut stream = watch.http1().await;
        push(&mut stream, format!("{host}{flood}\r\n").as_bytes()).await;
        let answer = until_closed(&mut stream, SOON).await;
        assert_eq!(status(&answer, what), 431, "{what}");
        watch.unharmed(what).await;
    }
    // Forty that never end a header: each is stopped at 64 KiB, not at what it can send.
    let endless = (0..40).map(|_| async {
        let mut stream = watch.http1().await;
        push(&mut stream, host.as_bytes()).await;
        let mut sent = 0;
        let chunk = format!("h: {}\r\n", "x".repeat(16_000));
        while sent < 8 * 1_024 * 1_024 && push(&mut stream, chunk.as_bytes()).await {
            sent += chunk.len();
        }
        assert!(sent < 8 * 1_024 * 1_024, "a header has no end");
    });
    futures_util::future::join_all(endless).await;
    watch.unharmed("endless headers").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_tls_is_turned_away() {
    let watch = Watch::begin("no-tls").await;
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0; 1_000],
        &[0xff; 70_000],
    ] {
        let mut stream = watch.web().await;
        push(&mut stream, bytes).await;
        let answer = until_closed(&mut stream, SOON).await;
        // A TLS alert, or a reset because there was more than it cared to read.
        assert!(matches!(answer.first(), None | Some(0x15)), "{answer:?}");
    }
    watch.unharmed("bytes that are not TLS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_win_over_a_length_and_nothing_is_left_to_be_a_second_request() {
    let watch = Watch::begin("smuggled").await;
    // Whoever believes the length reads a second request in what follows the last chunk.
    let hidden = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n";
    let body = format!("5\r\nhello\r\n0\r\n\r\n{hidden}");
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {API}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
         Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n{body}",
        watch.person.bearer,
        body.len()
    );
    let mut stream = watch.http1().await;
    push(&mut stream, request.as_bytes()).await;
    let answer = until_closed(&mut stream, SOON).await;
    let text = String::from_utf8_lossy(&answer);
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    match status(&answer, "length and chunks") {
        200 => assert!(text.ends_with("hello"), "{text}"),
        other => assert_eq!(other, 400, "{text}"),
    }
    watch.unharmed("length and chunks").await;
}
