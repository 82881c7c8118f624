//! What applications and the servers before Curfew do: odd answers, closing connections, other
//! origins, frames, caches, balancers.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use curfew_web::Body;
use http::{Response, header as name};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::harness::{Bench, Speaks, header, raw, read_head, text, until};
use crate::config::{self, ClientHeader, Listener};

const SOON: Duration = Duration::from_secs(5);

/// A resource that answers each request with what `answer` makes of its path.
async fn answering(answer: impl Fn(&str) -> String + Clone + Send + Sync + 'static) -> Bench {
    let port = raw(move |mut stream, _| {
        let answer = answer.clone();
        async move {
            while let Some(head) = read_head(&mut stream).await {
                let path = head.split(' ').nth(1).unwrap_or_default();
                if stream.write_all(answer(path).as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    Bench::with("", Speaks::Raw(port), |_| {}).await
}

#[tokio::test]
async fn what_an_answer_says_of_its_length_is_not_believed() {
    let bench = answering(|path| {
        let lengths = match path {
            "/short" => "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "/long" => "Transfer-Encoding: chunked\r\nContent-Length: 50",
            _ => "Transfer-Encoding: chunked",
        };
        format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n")
    })
    .await;
    for path in ["/short", "/long", "/"] {
        let response = bench.send("shop", bench.signed_in("GET", path)).await;
        assert!(!response.headers().contains_key("content-length"));
        assert_eq!(
            text(response.into_body()).await.unwrap(),
            "hello world",
            "{path}"
        );
        let request = bench.h2_request("GET", path).body(super::harness::empty());
        let response = bench
            .h2()
            .await
            .send_request(request.unwrap())
            .await
            .unwrap();
        assert_eq!(
            text(response.into_body()).await.unwrap(),
            "hello world",
            "{path}"
        );
    }
}

#[tokio::test]
async fn long_heads_pass_up_to_a_limit_that_is_told() {
    let bench = answering(|path| {
        let count = path.trim_start_matches('/').parse().unwrap_or(0);
        let links = "Link: </a.js>; rel=preload\r\n".repeat(count);
        format!("HTTP/1.1 200 OK\r\n{links}Content-Length: 2\r\n\r\nok")
    })
    .await;
    for (path, status) in [("/400", 200), ("/600", 502)] {
        let response = bench.send("shop", bench.signed_in("GET", path)).await;
        assert_eq!(response.status(), status, "{path}");
        if status == 502 {
            let said = text(response.into_body()).await.unwrap();
            assert!(said.contains("longer than is passed on"), "{said}");
        }
    }
}

#[tokio::test]
async fn a_read_that_meets_a_closing_connection_is_sent_once_more() {
    // Every connection answers once, and closes when it is asked again.
    let port = raw(|mut stream, _| async move {
        if read_head(&mut stream).await.is_some() {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
            let _ = read_head(&mut stream).await;
        }
    })
    .await;
    let bench = Bench::with("", Speaks::Raw(port), |_| {}).await;
    let send = async |method: &str, header: (&str, &str)| {
        let request = bench.signed_in(method, "/").header(header.0, header.1);
        let response = bench.send("shop", request).await;
        let status = response.status().as_u16();
        let _ = text(response.into_body()).await;
        // Until the connection is kept.
        tokio::time::sleep(Duration::from_millis(30)).await;
        status
    };
    let plain = ("x-mine", "1");
    assert_eq!(send("GET", plain).await, 200);
    for _ in 0..3 {
        assert_eq!(send("HEAD", plain).await, 200);
        assert_eq!(send("GET", plain).await, 200);
    }
    // What may have been done is not done twice.
    assert_eq!(send("DELETE", plain).await, 502);
    assert_eq!(send("GET", plain).await, 200);
    assert_eq!(send("GET", ("x-http-method-override", "DELETE")).await, 502);
}

#[tokio::test]
async fn pages_of_named_origins_may_call_and_are_told_why_they_may_not() {
    let own = "https://app.test";
    let bench = Bench::with("", Speaks::Plain, |config| {
        for web in &mut config.web {
            web.cors_origins = vec![own.to_owned()];
        }
    })
    .await;
    let preflight = |origin: &str, method: &str| {
        let request = bench.request(method, "api", "/v1").header("origin", origin);
        let request = request.header("access-control-request-method", "PUT");
        request.header("access-control-request-headers", "authorization,x-mine")
    };
    let response = bench.send("api", preflight(own, "OPTIONS")).await;
    assert_eq!(response.status(), 204);
    let allows = |response: &Response<Incoming>, name| header(response.headers(), name).to_owned();
    assert_eq!(allows(&response, "access-control-allow-origin"), own);
    assert_eq!(allows(&response, "access-control-allow-methods"), "PUT");
    assert_eq!(
        allows(&response, "access-control-allow-headers"),
        "authorization,x-mine"
    );
    for (origin, method) in [("https://evil.test", "OPTIONS"), (own, "GET"), (own, "PUT")] {
        let response = bench.send("api", preflight(origin, method)).await;
        assert_eq!(response.status(), 401, "{origin} {method}");
        let allowed = allows(&response, "access-control-allow-origin");
        assert_eq!(allowed == own, origin == own, "{origin} {method}");
    }
    // With a session it is a request like any other.
    let request = bench.signed_in("OPTIONS", "/").header("origin", own);
    let response = bench.send("shop", request).await;
    assert_eq!(response.status(), 200);
    assert_eq!(
        allows(&response, "access-control-allow-origin"),
        "",
        "the app's to say"
    );
    assert_eq!(bench.backend.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_page_in_a_frame_says_where_to_sign_in() {
    let bench = Bench::new("").await;
    let framed = bench.request("GET", "shop", "/dash?a=1");
    let framed = framed
        .header("accept", "text/html")
        .header("sec-fetch-mode", "navigate")
        .header("sec-fetch-dest", "iframe");
    let response = bench.send("shop", framed).await;
    assert_eq!(response.status(), 401);
    assert!(!response.headers().contains_key("location"));
    let policy = header(response.headers(), "content-security-policy").to_owned();
    assert!(policy.contains("frame-ancestors *") && policy.contains("default-src 'none'"));
    let page = text(response.into_body()).await.unwrap();
    let link = format!(
        "href=\"https://shop.localhost:{}/dash?a=1\" target=\"_blank\" rel=\"noopener\"",
        bench.port
    );
    assert!(page.contains(&link), "{page}");
}

#[tokio::test]
async fn browsers_ask_again_about_pages_and_forget_them_at_the_end() {
    let bench = Bench::new("").await;
    let response = bench.send("shop", bench.signed_in("GET", "/kept")).await;
    assert_eq!(header(response.headers(), "cache-control"), "no-store");
    bench.end().await;
    let page = bench
        .signed_in("GET", "/kept")
        .header("accept", "text/html");
    let response = bench.send("shop", page).await;
    assert_eq!(response.status(), 303);
    assert_eq!(header(response.headers(), "clear-site-data"), "\"cache\"");
}

#[tokio::test]
async fn a_resource_behind_another_name_is_found_and_never_seen() {
    let port = raw(|mut stream, _| async move {
        while let Some(head) = read_head(&mut stream).await {
            let host = head
                .split("\r\nhost: ")
                .nth(1)
                .and_then(|rest| rest.split('\r').next());
            let host = host.unwrap_or_default();
            let answer = format!(
                "HTTP/1.1 302 Found\r\nLocation: http://{host}/in\r\nX-Host: {host}\r\n\
                 Set-Cookie: a=1; Domain=inner.test\r\nContent-Length: 0\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let bench = Bench::with("", Speaks::Raw(port), |config| {
        config.web[0].upstream_host = Some("inner.test".to_owned());
    })
    .await;
    let response = bench.send("shop", bench.signed_in("GET", "/")).await;
    assert_eq!(header(response.headers(), "x-host"), "inner.test");
    let public = format!("https://shop.localhost:{}/in", bench.port);
    assert_eq!(header(response.headers(), "location"), public);
    assert_eq!(header(response.headers(), "set-cookie"), "a=1");
}

/// Waits until the gateway closes a connection; how long that took.
async fn closes(stream: &mut (impl AsyncReadExt + Unpin)) -> Duration {
    let start = Instant::now();
    let mut bytes = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut bytes)).await.unwrap();
    start.elapsed()
}

#[tokio::test]
async fn connections_without_requests_are_closed_after_their_own_time() {
    let keep = Duration::from_millis(600);
    let bench = Bench::with("", Speaks::Plain, |config| {
        config.tuning.keep_alive = config::Duration(keep);
    })
    .await;
    // HTTP/1.1: between requests, and not during one.
    let mut stream = bench.connect("shop", "http/1.1").await;
    let get = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: shop.localhost:{}\r\nCookie: __Host-curfew={}\r\n\r\n",
            bench.port, bench.cookie
        )
    };
    for _ in 0..3 {
        stream.write_all(get("/kept").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"kept") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
        tokio::time::sleep(keep / 2).await;
    }
    let waited = closes(&mut stream).await;
    assert!(waited >= keep / 3 && waited < keep * 2, "{waited:?}");
    let mut stream = bench.connect("shop", "http/1.1").await;
    stream.write_all(get("/slow").as_bytes()).await.unwrap();
    let waits = timeout(keep * 2, stream.read_u8());
    assert!(waits.await.is_err(), "a request is waited for");

    // HTTP/2: the same, and a stream keeps it open.
    let mut client = bench.h2().await;
    let request = |path: &str| bench.h2_request("GET", path).body(super::harness::empty());
    let events = client
        .send_request(request("/events").unwrap())
        .await
        .unwrap();
    tokio::time::sleep(keep * 2).await;
    let response = client
        .send_request(request("/kept").unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    drop((response, events));
    assert!(until(|| client.is_closed()).await);
}

#[tokio::test]
async fn strangers_shut_nobody_out_and_a_websocket_has_a_place() {
    let bench = Bench::with("", Speaks::Plain, |config| {
        config.tuning.connections_max = 8;
    })
    .await;
    let mut socket = bench.websocket(&[]).await.unwrap();
    // Idle connections, and forms that never come.
    let form =
        b"POST /sign-in HTTP/1.1\r\nHost: curfew.localhost\r\nContent-Length: 99\r\n\r\nname=";
    let mut hogs = Vec::new();
    for _ in 0..4 {
        let stream = TcpStream::connect(("127.0.0.1", bench.port)).await.unwrap();
        hogs.push(stream);
    }
    let hogging = async |protocol: &str| {
        let mut stream = bench.connect("curfew", protocol).await;
        if protocol == "http/1.1" {
            stream.write_all(form).await.unwrap();
        }
        stream
    };
    let both = (hogging("h2").await, hogging("http/1.1").await);
    for _ in 0..3 {
        let in_time = timeout(SOON, bench.send("shop", bench.signed_in("GET", "/")));
        assert_eq!(in_time.await.unwrap().status(), 200);
    }
    let message = tokio_tungstenite::tungstenite::Message::text("hi");
    futures_util::SinkExt::send(&mut socket, message.clone())
        .await
        .unwrap();
    let echo = futures_util::StreamExt::next(&mut socket).await.unwrap();
    assert_eq!(echo.unwrap(), message);
    drop((hogs, both));
}

/// What the resource is told of who asks.
async fn client_of(bench: &Bench, stream: TcpStream, forwarded: &str) -> String {
    let mut stream = bench.encrypt(stream, "shop", "http/1.1").await;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: shop.localhost:{}\r\nCookie: __Host-curfew={}\r\n\
         X-Forwarded-For: {forwarded}\r\nConnection: close\r\n\r\n",
        bench.port, bench.cookie
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = timeout(SOON, stream.read_to_string(&mut answer))
        .await
        .unwrap();
    let told = answer.split("x-forwarded-for: ").nth(1).unwrap_or_default();
    told.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn balancers_say_who_a_client_is_if_they_are_trusted() {
    let connect =
        async |bench: &Bench| TcpStream::connect(("127.0.0.1", bench.port)).await.unwrap();
    let loopback = || vec!["127.0.0.0/8".parse().unwrap()];

    let bench = Bench::new("").await;
    let stream = connect(&bench).await;
    assert_eq!(client_of(&bench, stream, "203.0.113.9").await, "127.0.0.1");

    let bench = Bench::with("", Speaks::Plain, |config| {
        config.listen.trusted_proxies = loopback();
        config.listen.client_header = Some(ClientHeader::XForwardedFor);
    })
    .await;
    let stream = connect(&bench).await;
    let hops = "10.9.9.9, 203.0.113.9, 127.0.0.7";
    assert_eq!(client_of(&bench, stream, hops).await, "203.0.113.9");

    let bench = Bench::with("", Speaks::Plain, |config| {
        config.listen.trusted_proxies = loopback();
        config.listen.proxy_protocol = vec![Listener::Web];
    })
    .await;
    let mut stream = connect(&bench).await;
    stream
        .write_all(b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 443\r\n")
        .await
        .unwrap();
    assert_eq!(client_of(&bench, stream, "10.9.9.9").await, "203.0.113.9");
    // Without its header a trusted proxy gets nothing.
    let mut stream = connect(&bench).await;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    closes(&mut stream).await;
}

#[tokio::test]
async fn offers_are_ignored_and_old_websockets_are_told_the_version() {
    let bench = Bench::new("").await;
    let offer = |protocol: &str| {
        let request = bench.signed_in("GET", "/").header("connection", "upgrade");
        request.header("upgrade", protocol)
    };
    for protocol in ["h2c", "TLS/1.0", "websocket, h2c"] {
        let response = bench.send("shop", offer(protocol)).await;
        assert_eq!(response.status(), 200, "{protocol}");
        let seen = text(response.into_body()).await.unwrap();
        assert!(!seen.contains("upgrade"), "{seen}");
    }
    let old = offer("websocket").header("sec-websocket-version", "8");
    let response = bench.send("shop", old).await;
    assert_eq!(response.status(), 426);
    assert_eq!(header(response.headers(), "sec-websocket-version"), "13");
    assert_eq!(
        header(response.headers(), name::UPGRADE.as_str()),
        "websocket"
    );
}

#[tokio::test]
async fn a_request_that_asks_to_be_a_write_is_a_write() {
    let rules = r#"@id("read") permit (principal, action == Action::"web.read", resource == Resource::"shop");"#;
    let bench = Bench::new(rules).await;
    let get = |path: &str, name: &str| {
        let request = bench.signed_in("GET", path).header(name, "DELETE");
        bench.send("shop", request)
    };
    assert_eq!(get("/", "x-mine").await.status(), 200);
    for name in [
        "X-HTTP-Method-Override",
        "X_HTTP_Method_Override",
        "x-method",
    ] {
        assert_eq!(get("/", name).await.status(), 403, "{name}");
    }
    assert_eq!(get("/?_method=delete", "x-mine").await.status(), 403);
    assert_eq!(bench.backend.requests.load(Ordering::SeqCst), 1);
    // Another site's page cannot have a browser ask for it either.
    let bench = Bench::new("").await;
    let foreign = bench.signed_in("GET", "/?_method=delete");
    let foreign = foreign.header("sec-fetch-site", "cross-site");
    let empty: Body = super::harness::empty();
    let response = bench.send_body("shop", foreign.body(empty).unwrap()).await;
    assert_eq!(response.status(), 403);
}
