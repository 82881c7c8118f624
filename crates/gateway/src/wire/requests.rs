//! The plane on real sockets: what is let through, what is refused, and how it is cut.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use curfew_web::Body;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{self, Message};

use super::harness::{Bench, header, text, until};

const SOON: Duration = Duration::from_secs(5);
const HTML: (&str, &str) = ("accept", "text/html");

/// How long after the answer to the command that ends a session its traffic may still be seen by a
/// client. The cut comes before that answer; a second is what the standards grant (AC-12, SC-10),
/// and a busy test machine needs some of it to read.
const CUT_WITHIN: Duration = Duration::from_secs(1);

#[tokio::test]
async fn without_a_session_pages_are_sent_to_sign_in_and_programs_are_told() {
    let bench = Bench::new("").await;
    let page = bench
        .request("GET", "shop", "/orders?a=b")
        .header(HTML.0, HTML.1);
    let response = bench.send("shop", page).await;
    assert_eq!(response.status(), 303);
    let portal = format!("https://curfew.localhost:{}/sign-in?", bench.port);
    let location = header(response.headers(), "location");
    assert!(location.starts_with(&portal), "{location}");
    assert!(
        location.contains("resource=shop&to=/orders%3Fa%3Db&state="),
        "{location}"
    );
    let begin = header(response.headers(), "set-cookie");
    assert!(
        begin.starts_with("__Host-curfew-begin=") && begin.contains("; HttpOnly"),
        "{begin}"
    );
    assert_eq!(header(response.headers(), "cache-control"), "no-store");
    assert_eq!(
        header(response.headers(), "strict-transport-security"),
        "max-age=31536000"
    );

    // An API is never redirected, whatever its client takes.
    let call = bench.request("GET", "api", "/").header(HTML.0, HTML.1);
    let response = bench.send("api", call).await;
    assert_eq!(response.status(), 401);
    assert_eq!(
        header(response.headers(), "www-authenticate"),
        "Bearer realm=\"curfew\""
    );
    assert_eq!(
        header(response.headers(), "content-type"),
        "application/json"
    );
    assert!(
        text(response.into_body())
            .await
            .unwrap()
            .contains("/sign-in")
    );

    let call = bench
        .request("GET", "api", "/")
        .header("authorization", "Bearer cft_nonsense");
    let response = bench.send("api", call).await;
    assert_eq!(response.status(), 401);
    let challenge = header(response.headers(), "www-authenticate").to_owned();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    assert_eq!(bench.backend.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_form_sent_without_a_session_is_not_redirected() {
    let bench = Bench::new("").await;
    let form = bench
        .request("POST", "shop", "/orders")
        .header(HTML.0, HTML.1);
    let response = bench.send("shop", form).await;
    assert_eq!(response.status(), 401);
    assert!(!header(response.headers(), "www-authenticate").is_empty());
    let page = text(response.into_body()).await.unwrap();
    assert!(
        page.contains("was not passed on") && page.contains("/sign-in?resource=shop"),
        "{page}"
    );
}

#[tokio::test]
async fn what_policy_refuses_is_refused_and_what_it_wants_stronger_is_said() {
    let bench = Bench::new("").await;
    let vault = bench.sign_in("vault").await;
    let cookie = |cookie: &str| format!("__Host-curfew={cookie}");
    let call = bench
        .request("GET", "vault", "/")
        .header("cookie", cookie(&vault));
    let response = bench.send("vault", call).await;
    assert_eq!(response.status(), 403);
    assert!(
        text(response.into_body())
            .await
            .unwrap()
            .contains("no-vault")
    );

    // The cookie of one resource opens no other.
    let call = bench
        .request("GET", "shop", "/")
        .header("cookie", cookie(&vault));
    assert_eq!(bench.send("shop", call).await.status(), 403);

    let strong = bench.sign_in("strong").await;
    let call = bench
        .request("GET", "strong", "/")
        .header("cookie", cookie(&strong));
    let response = bench.send("strong", call).await;
    assert_eq!(response.status(), 401);
    let challenge = header(response.headers(), "www-authenticate").to_owned();
    assert!(
        challenge.contains("error=\"insufficient_user_authentication\""),
        "{challenge}"
    );
    assert!(challenge.contains("acr_values=\"aal2\""), "{challenge}");
    let page = bench
        .request("GET", "strong", "/")
        .header("cookie", cookie(&strong));
    let response = bench.send("strong", page.header(HTML.0, HTML.1)).await;
    assert_eq!(response.status(), 303);
    assert!(header(response.headers(), "location").ends_with("&reauth=1&aal=2"));
    assert_eq!(bench.backend.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_request_goes_through_without_secrets_and_comes_back_clean() {
    for bench in [Bench::new("").await, Bench::secure("").await] {
        let request = bench
            .request("POST", "shop", "/cart?x=1")
            .header(
                "cookie",
                format!("a=1; __Host-curfew={}; b=2", bench.cookie),
            )
            .header("x-forwarded-for", "10.1.1.1")
            .header("curfew-subject", "root")
            .body(super::harness::full("hello".to_owned()))
            .unwrap();
        let response = bench.send_body("shop", request).await;
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("server"));
        let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["own=1"]);
        let seen = text(response.into_body()).await.unwrap();
        assert!(seen.contains("cookie: a=1; b=2\n"), "{seen}");
        assert!(seen.contains("x-forwarded-for: 127.0.0.1\n"), "{seen}");
        assert!(seen.contains("curfew-subject: ada\n"), "{seen}");
        assert!(seen.contains("curfew-assertion: ey"), "{seen}");
        let public = format!("shop.localhost:{}", bench.port);
        assert!(
            seen.contains(&format!("x-forwarded-host: {public}\n")),
            "{seen}"
        );
        let host = seen.contains(&format!("host: {public}\n"));
        let authority = seen.contains(&format!("HTTP/2.0 POST https://{public}/cart?x=1\n"));
        assert!(host || authority, "{seen}");
        assert!(
            !seen.contains(&bench.cookie) && !seen.contains("root"),
            "{seen}"
        );
        assert!(seen.ends_with("\nhello"), "{seen}");
    }
}

#[tokio::test]
async fn an_answer_without_a_body_keeps_what_it_says_about_one() {
    let bench = Bench::new("").await;
    let response = bench.send("shop", bench.signed_in("HEAD", "/")).await;
    assert_eq!(response.status(), 200);
    assert_ne!(header(response.headers(), "content-length"), "");
    assert_eq!(text(response.into_body()).await.unwrap(), "");
}

#[tokio::test]
async fn connections_to_the_resource_serve_again() {
    for bench in [Bench::new("").await, Bench::secure("").await] {
        for _ in 0..5 {
            let response = bench.send("shop", bench.signed_in("GET", "/")).await;
            text(response.into_body()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(bench.backend.connections.load(Ordering::SeqCst), 1);
        // A request with no answer must not poison the next.
        let slow = timeout(
            Duration::from_millis(100),
            bench.send("shop", bench.signed_in("GET", "/slow")),
        );
        assert!(slow.await.is_err());
        let response = bench.send("shop", bench.signed_in("GET", "/")).await;
        assert_eq!(response.status(), 200);
    }
}

#[tokio::test]
async fn trailers_pass_from_end_to_end_but_for_names_of_curfews() {
    for bench in [Bench::secure("").await, Bench::new("").await] {
        let names = [
            "x-checksum",
            "curfew-subject",
            "Curfew_Roles",
            "x-forwarded-for",
            "cookie",
            "authorization",
        ];
        let trailers = names.map(|name| (name.parse().unwrap(), "1".parse().unwrap()));
        let frames = [
            Ok(Frame::data(Bytes::from_static(b"body"))),
            Ok(Frame::trailers(trailers.into_iter().collect())),
        ];
        let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
        let request = bench
            .h2_request("POST", "/trailers")
            .header("te", "trailers")
            .header("trailer", "x-checksum");
        let request = request.body(body).unwrap();
        let response = bench.h2().await.send_request(request).await;
        let body = response.unwrap().into_body().collect().await.unwrap();
        // Over HTTP/1.1 the resource says beforehand which trailers there will be.
        if let Some(trailers) = body.trailers() {
            let names: Vec<&str> = trailers.keys().map(http::HeaderName::as_str).collect();
            assert_eq!(names, ["grpc-status"]);
        }
        let seen = String::from_utf8(body.to_bytes().to_vec()).unwrap();
        assert_eq!(seen, "[\"x-checksum\"]");
    }
}

#[tokio::test]
async fn a_cut_event_stream_breaks_off_and_the_next_request_is_told_why() {
    let bench = Bench::new("").await;
    let response = bench.send("shop", bench.signed_in("GET", "/events")).await;
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    bench.end().await;
    let start = Instant::now();
    let broke = timeout(SOON, async {
        loop {
            match body.frame().await {
                Some(Ok(_)) => {}
                other => return other.is_some_and(|frame| frame.is_err()),
            }
        }
    });
    assert!(broke.await.unwrap(), "a cut answer must not look whole");
    assert!(start.elapsed() < CUT_WITHIN, "{:?}", start.elapsed());
    let open = &bench.backend.open;
    assert!(
        until(|| open.load(Ordering::SeqCst) == 0).await,
        "the resource's side is closed too"
    );

    let response = bench.send("shop", bench.signed_in("GET", "/")).await;
    assert_eq!(response.status(), 401);
    assert!(header(response.headers(), "set-cookie").contains("Max-Age=0"));
    assert!(
        text(response.into_body())
            .await
            .unwrap()
            .contains("An administrator ended")
    );
    let page = bench.signed_in("GET", "/").header(HTML.0, HTML.1);
    let response = bench.send("shop", page).await;
    assert_eq!(response.status(), 303);
    assert!(header(response.headers(), "location").ends_with("&ended=ended_by_admin"));
}

#[tokio::test]
async fn over_http2_only_the_streams_of_the_session_are_reset() {
    let bench = Bench::secure("").await;
    let mut client = bench.h2().await;
    let request = bench
        .h2_request("GET", "/events")
        .body(super::harness::empty())
        .unwrap();
    let mut body = client.send_request(request).await.unwrap().into_body();
    assert!(body.frame().await.unwrap().is_ok());
    bench.end().await;
    let error = timeout(SOON, async {
        loop {
            match body.frame().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Some(error),
                None => return None,
            }
        }
    });
    assert!(
        error.await.unwrap().is_some(),
        "a cut stream must not look whole"
    );
    let request = bench
        .h2_request("GET", "/")
        .body(super::harness::empty())
        .unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!(response.status(), 401, "the connection lives");
}

#[tokio::test]
async fn a_client_that_does_not_read_cannot_keep_the_resource_open() {
    let bench = Bench::new("").await;
    let response = bench.send("shop", bench.signed_in("GET", "/flood")).await;
    // Everything between is full once the resource gets rid of nothing more.
    let flooded = &bench.backend.flooded;
    let mut before = 0;
    while before == 0 || flooded.load(Ordering::SeqCst) != before {
        before = flooded.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bench.end().await;
    let open = &bench.backend.open;
    assert!(until(|| open.load(Ordering::SeqCst) == 0).await);
    assert_eq!(
        flooded.load(Ordering::SeqCst),
        before,
        "nothing more left the resource"
    );
    drop(response);
}

#[tokio::test]
async fn an_upload_and_a_wait_are_cut() {
    let bench = Bench::new("").await;
    let chunks = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Some((Ok(Frame::data(Bytes::from_static(b"x"))), ()))
    });
    let upload = bench
        .signed_in("POST", "/upload")
        .body(Body::new(StreamBody::new(chunks)))
        .unwrap();
    let wait = bench.signed_in("GET", "/slow");
    let (uploaded, waited, ()) = tokio::join!(
        bench.send_body("shop", upload),
        bench.send("shop", wait),
        async {
            assert!(until(|| bench.backend.requests.load(Ordering::SeqCst) == 2).await);
            bench.end().await;
        }
    );
    assert_eq!(uploaded.status(), 401);
    assert_eq!(waited.status(), 401);
    assert!(until(|| bench.backend.upload_broken.load(Ordering::SeqCst)).await);
    assert!(until(|| bench.backend.open.load(Ordering::SeqCst) == 0).await);
}

async fn close_code(
    socket: &mut (impl StreamExt<Item = Result<Message, tungstenite::Error>> + Unpin),
) -> (u16, String) {
    let closed = timeout(SOON, async {
        while let Some(message) = socket.next().await {
            if let Message::Close(Some(frame)) = message.unwrap() {
                return Some((frame.code.into(), frame.reason.to_string()));
            }
        }
        None
    });
    closed.await.unwrap().unwrap()
}

#[tokio::test]
async fn a_websocket_carries_messages_and_is_closed_with_its_reason() {
    for bench in [Bench::new("").await, Bench::secure("").await] {
        let mut socket = bench.websocket(&[]).await.unwrap();
        for message in ["one", &"x".repeat(100_000)] {
            socket.send(Message::text(message)).await.unwrap();
            let echoed = timeout(SOON, socket.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            assert_eq!(echoed, Message::text(message));
        }
        bench.end().await;
        let start = Instant::now();
        let (code, reason) = close_code(&mut socket).await;
        assert_eq!((code, reason.as_str()), (3000, "session ended"));
        assert!(start.elapsed() < CUT_WITHIN, "{:?}", start.elapsed());
        assert!(until(|| bench.backend.open.load(Ordering::SeqCst) == 0).await);
    }
}

#[tokio::test]
async fn pings_do_not_keep_a_websocket_alive_but_messages_do() {
    let rules =
        r#"@id("shop") @idle("700ms") permit (principal, action, resource == Resource::"shop");"#;
    let bench = Bench::new(rules).await;
    let mut socket = bench.websocket(&[]).await.unwrap();
    // Three idle limits long, a message each half of it.
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(350)).await;
        socket.send(Message::text("hi")).await.unwrap();
        let echoed = timeout(SOON, socket.next()).await.unwrap().unwrap();
        assert_eq!(echoed.unwrap(), Message::text("hi"));
    }
    let start = Instant::now();
    let pinging = async {
        loop {
            if socket.send(Message::Ping(Bytes::new())).await.is_err() {
                return None;
            }
            match timeout(Duration::from_millis(100), socket.next()).await {
                Ok(Some(Ok(Message::Close(frame)))) => return frame,
                Ok(Some(Ok(_))) | Err(_) => {}
                Ok(_) => return None,
            }
        }
    };
    let frame = timeout(SOON, pinging).await.unwrap().unwrap();
    assert_eq!(u16::from(frame.code), 3008, "{}", frame.reason);
    assert!(frame.reason.contains("700ms"), "{}", frame.reason);
    assert!(
        start.elapsed() >= Duration::from_millis(600),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn the_longest_time_of_a_resource_ends_its_websockets() {
    let rules =
        r#"@id("shop") @lifetime("1s") permit (principal, action, resource == Resource::"shop");"#;
    let bench = Bench::new(rules).await;
    let mut socket = bench.websocket(&[]).await.unwrap();
    assert_eq!(close_code(&mut socket).await.0, 4001);
}
