//! Uploads, answers and their permit: what goes on, what counts as somebody's doing, what is cut.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use curfew_web::Body;
use futures_util::SinkExt;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::harness::{Bench, Speaks, header, raw, read_head, text, until};
use crate::config;

const SOON: Duration = Duration::from_secs(5);

/// A short idle limit for the shop alone.
const IDLE: &str =
    r#"@id("shop") @idle("700ms") permit (principal, action, resource == Resource::"shop");"#;

/// A body that sends `chunk` every so often, for ever.
fn drip(every: Duration, chunk: &'static [u8]) -> Body {
    let chunks = futures_util::stream::unfold((), move |()| async move {
        tokio::time::sleep(every).await;
        Some((Ok(Frame::data(Bytes::from_static(chunk))), ()))
    });
    Body::new(StreamBody::new(chunks))
}

fn millis(millis: u64) -> config::Duration {
    config::Duration(Duration::from_millis(millis))
}

#[tokio::test]
async fn an_upload_outlives_its_answer_but_not_its_permit() {
    for bench in [Bench::new("").await, Bench::secure("").await] {
        let upload = drip(Duration::from_millis(5), b"xxxx");
        let upload = bench.h2_request("POST", "/early").body(upload).unwrap();
        let response = bench.h2().await.send_request(upload).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(text(response.into_body()).await.unwrap(), "early");
        let backend = &bench.backend;
        let answered = backend.uploaded.load(Ordering::SeqCst);
        let goes_on = until(|| backend.uploaded.load(Ordering::SeqCst) > answered + 40).await;
        assert!(goes_on, "the rest of the upload arrives");
        bench.end().await;
        assert!(until(|| backend.upload_broken.load(Ordering::SeqCst)).await);
        let cut = backend.uploaded.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(
            backend.uploaded.load(Ordering::SeqCst),
            cut,
            "nothing more comes"
        );
        assert!(until(|| backend.open.load(Ordering::SeqCst) == 0).await);
    }
}

#[tokio::test]
async fn waiting_for_the_client_is_no_activity_and_an_upload_is() {
    let pending = || Body::new(StreamBody::new(futures_util::stream::pending()));
    for body in [pending(), drip(Duration::from_millis(50), b"x")] {
        let bench = Bench::new(IDLE).await;
        let start = Instant::now();
        let upload = bench.signed_in("POST", "/upload").body(body).unwrap();
        let response = timeout(SOON, bench.send_body("shop", upload))
            .await
            .unwrap();
        assert_eq!(response.status(), 401);
        let challenge = header(response.headers(), "www-authenticate").to_owned();
        assert!(
            challenge.contains("insufficient_user_authentication"),
            "{challenge}"
        );
        assert!(
            start.elapsed() >= Duration::from_millis(650),
            "{:?}",
            start.elapsed()
        );
        assert!(until(|| bench.backend.upload_broken.load(Ordering::SeqCst)).await);
    }
    let bench = Bench::new(IDLE).await;
    let upload = drip(Duration::from_millis(20), &[b'x'; 8_192]);
    let upload = bench.signed_in("POST", "/upload").body(upload).unwrap();
    let lasting = timeout(
        Duration::from_millis(2_100),
        bench.send_body("shop", upload),
    );
    assert!(lasting.await.is_err(), "three idle limits long");
}

#[tokio::test]
async fn what_is_waited_for_is_activity_until_it_comes() {
    let port = raw(|mut stream, _| async move {
        while read_head(&mut stream).await.is_some() {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let bench = Bench::with(IDLE, Speaks::Raw(port), |_| {}).await;
    let post = bench
        .signed_in("POST", "/")
        .body(super::harness::full("x".to_owned()));
    let response = bench.send_body("shop", post.unwrap()).await;
    assert_eq!(response.status(), 200, "twice the idle limit long");
    assert_eq!(
        bench
            .send("shop", bench.signed_in("GET", "/"))
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_and_an_answer_that_comes_too_late_are_given_up() {
    let bench = Bench::with("", Speaks::Plain, |config| {
        for web in &mut config.web {
            web.body_timeout = millis(300);
            web.answer_timeout = millis(900);
        }
    })
    .await;
    let upload = drip(Duration::from_millis(100), b"x");
    let upload = bench.signed_in("POST", "/upload").body(upload).unwrap();
    let response = timeout(SOON, bench.send_body("shop", upload))
        .await
        .unwrap();
    assert_eq!(response.status(), 408);
    assert_eq!(header(response.headers(), "connection"), "close");
    let slow = bench.send("shop", bench.signed_in("GET", "/slow"));
    assert_eq!(timeout(SOON, slow).await.unwrap().status(), 504);
    // Once the resource answers, both talk for as long as they like.
    let upload = drip(Duration::from_millis(100), b"x");
    let upload = bench.h2_request("POST", "/early").body(upload).unwrap();
    let response = bench.h2().await.send_request(upload).await.unwrap();
    assert_eq!(text(response.into_body()).await.unwrap(), "early");
    let uploaded = &bench.backend.uploaded;
    assert!(until(|| uploaded.load(Ordering::SeqCst) > 15).await);
}

#[tokio::test]
async fn only_messages_of_a_person_keep_a_websocket() {
    let beats = |config: &mut config::Config| {
        for web in &mut config.web {
            web.passive_messages = vec!["^2$".to_owned()].try_into().unwrap();
        }
    };
    // What is sent, where, and whether it keeps the WebSocket.
    let cases = [
        ("/ws", "hi", true),
        ("/ws", "", false),
        ("/ws", "2", false),
        ("/poll/ws", "hi", false),
    ];
    for (path, said, keeps) in cases {
        let bench = Bench::with(IDLE, Speaks::Plain, beats).await;
        let extension = ("sec-websocket-extensions", "permessage-deflate");
        let mut socket = bench.websocket_at(path, &[extension]).await.unwrap();
        let talking = async {
            loop {
                socket.send(Message::text(said)).await?;
                let echo = timeout(
                    Duration::from_millis(100),
                    futures_util::StreamExt::next(&mut socket),
                );
                match echo.await {
                    Ok(Some(Ok(Message::Close(frame)))) => return Ok(frame),
                    Ok(Some(Err(error))) => return Err(error),
                    Ok(None) => return Ok(None),
                    Ok(Some(Ok(_))) | Err(_) => {}
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let closed = timeout(Duration::from_millis(2_100), talking).await;
        if keeps {
            assert!(closed.is_err(), "{path} {said:?} {closed:?}");
        } else {
            let frame = closed.unwrap().unwrap().unwrap();
            assert_eq!(u16::from(frame.code), 3008, "{path} {said:?}");
        }
    }
}

/// Sends the head of an upload that waits for `100 Continue`, and gives what comes back.
async fn expect(bench: &Bench, path: &str) -> String {
    let mut stream = bench.connect("shop", "http/1.1").await;
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: shop.localhost:{}\r\nCookie: __Host-curfew={}\r\n\
         Content-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
        bench.port, bench.cookie
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = vec![0; 12];
    timeout(SOON, stream.read_exact(&mut first))
        .await
        .unwrap()
        .unwrap();
    if first == b"HTTP/1.1 100" {
        stream.write_all(b"hello").await.unwrap();
    }
    let _ = timeout(SOON, stream.read_to_end(&mut first)).await.unwrap();
    String::from_utf8(first).unwrap()
}

#[tokio::test]
async fn the_resource_is_asked_whether_it_wants_the_body() {
    let port = raw(|mut stream, _| async move {
        while let Some(head) = read_head(&mut stream).await {
            assert!(head.contains("expect: 100-continue"), "{head}");
            assert!(head.ends_with("\r\n\r\n"), "the body is held back: {head}");
            if head.starts_with("PUT /no") {
                let answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                // Nothing of it comes.
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                assert_eq!(rest, b"");
                return;
            }
            if head.starts_with("PUT /yes") {
                stream
                    .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                    .await
                    .unwrap();
            }
            let mut body = [0; 5];
            stream.read_exact(&mut body).await.unwrap();
            assert_eq!(&body, b"hello");
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let bench = Bench::with("", Speaks::Raw(port), |_| {}).await;
    let refused = expect(&bench, "/no").await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    // One that knows nothing of it gets the body after a second.
    for path in ["/yes", "/whatever"] {
        let taken = expect(&bench, path).await;
        assert!(taken.starts_with("HTTP/1.1 100"), "{taken}");
        assert!(taken.contains("HTTP/1.1 200 OK"), "{taken}");
    }
}

#[tokio::test]
async fn an_answer_that_comes_early_arrives() {
    let port = raw(|mut stream, _| async move {
        // Closes with most of the request unread, which resets the connection.
        let _ = read_head(&mut stream).await;
        let answer =
            b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large";
        let _ = stream.write_all(answer).await;
    })
    .await;
    let bench = Bench::with("", Speaks::Raw(port), |_| {}).await;
    let size = 8 << 20;
    for cookie in [bench.cookie.as_str(), "cfc_nonsense"] {
        for _ in 0..10 {
            let stream = bench.connect("shop", "http/1.1").await;
            let (mut read, mut write) = tokio::io::split(stream);
            let head = format!(
                "PUT / HTTP/1.1\r\nHost: shop.localhost:{}\r\nCookie: __Host-curfew={cookie}\r\n\
                 Content-Length: {size}\r\n\r\n",
                bench.port
            );
            let sending = tokio::spawn(async move {
                write.write_all(head.as_bytes()).await?;
                for _ in 0..size / 65_536 {
                    write.write_all(&[b'x'; 65_536]).await?;
                }
                Ok::<_, std::io::Error>(write)
            });
            let mut answer = Vec::new();
            let _ = timeout(SOON, read.read_to_end(&mut answer)).await.unwrap();
            let answer = String::from_utf8_lossy(&answer);
            let whole = answer.contains("413") && answer.ends_with("too large")
                || answer.contains("401") && answer.contains("connection: close");
            assert!(whole, "{answer}");
            drop(sending.await.unwrap());
        }
    }
}

#[tokio::test]
async fn a_get_keeps_its_body_whatever_its_length() {
    for bench in [Bench::new("").await, Bench::secure("").await] {
        let body = StreamBody::new(futures_util::stream::iter([Ok(Frame::data(
            Bytes::from_static(b"{\"q\":1}"),
        ))]));
        let request = bench.h2_request("GET", "/").body(Body::new(body)).unwrap();
        let response = bench.h2().await.send_request(request).await.unwrap();
        let seen = text(response.into_body()).await.unwrap();
        assert!(seen.ends_with("\n{\"q\":1}"), "{seen}");
    }
    // And what is said to be empty is said to be so.
    let bench = Bench::new("").await;
    let post = bench.signed_in("POST", "/").header("content-length", "0");
    let seen = text(bench.send("shop", post).await.into_body())
        .await
        .unwrap();
    assert!(seen.contains("content-length: 0\n"), "{seen}");
}
