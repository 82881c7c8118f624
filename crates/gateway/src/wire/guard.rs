//! What other sites, smugglers and strangers get, and how a session arrives and leaves.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Response;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite;

use super::harness::{Bench, header, text};

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn other_sites_can_neither_write_nor_connect_in_somebodys_name() {
    let bench = Bench::new("").await;
    let refused = bench
        .websocket(&[("origin", "https://evil.test")])
        .await
        .unwrap_err();
    let tungstenite::Error::Http(response) = refused else {
        panic!("{refused}")
    };
    assert_eq!(response.status(), 403);
    let own = format!("https://shop.localhost:{}", bench.port);
    assert!(bench.websocket(&[("origin", &own)]).await.is_ok());
    let post = bench
        .signed_in("POST", "/")
        .header("origin", "https://evil.test");
    assert_eq!(bench.send("shop", post).await.status(), 403);
    let post = bench.signed_in("POST", "/").header("origin", own);
    assert_eq!(bench.send("shop", post).await.status(), 200);
}

/// Name and value of the cookie that an answer sets first.
fn set_cookie(response: &Response<Incoming>) -> String {
    let set = header(response.headers(), "set-cookie");
    set.split(';').next().unwrap().to_owned()
}

/// Begins a sign-in: the begin cookie and what the portal is told.
async fn begin(bench: &Bench) -> (String, String) {
    let page = bench.request("GET", "shop", "/orders");
    let response = bench.send("shop", page.header("accept", "text/html")).await;
    let location = header(response.headers(), "location");
    let state = location.split("state=").nth(1).unwrap();
    (set_cookie(&response), state.to_owned())
}

/// Where the portal sends the browser.
fn offer(bench: &Bench, state: &str) -> String {
    let resource = "shop".parse().unwrap();
    let session = bench.session.clone();
    let code = bench
        .gateway
        .web
        .handover
        .offer(session, resource, state)
        .unwrap();
    let url = curfew_gate::handover::arrive_url("h", &code, "/orders");
    url.strip_prefix("https://h").unwrap().to_owned()
}

async fn get(bench: &Bench, url: &str, cookie: &str) -> Response<Incoming> {
    let request = bench.request("GET", "shop", url).header("cookie", cookie);
    bench.send("shop", request).await
}

#[tokio::test]
async fn a_session_arrives_by_handover_once_in_its_own_browser() {
    let bench = Bench::new("").await;
    let (cookie, state) = begin(&bench).await;
    let url = offer(&bench, &state);
    let response = get(&bench, &url, &cookie).await;
    assert_eq!(response.status(), 303);
    assert_eq!(header(response.headers(), "location"), "/orders");
    let session = set_cookie(&response);
    assert!(session.starts_with("__Host-curfew=cfc_"), "{session}");
    assert_eq!(get(&bench, "/", &session).await.status(), 200);

    // Whoever comes with a code that does not work begins anew, and gets nothing by it.
    let again = async |url: &str, cookie: &str, why: &str| {
        let response = get(&bench, url, cookie).await;
        assert_eq!(response.status(), 303, "{why}");
        let location = header(response.headers(), "location").to_owned();
        assert!(location.contains("/sign-in?resource=shop&to=/orders&state="));
        let set = set_cookie(&response);
        assert!(set.starts_with("__Host-curfew-begin="), "{why}: {set}");
        location
    };
    again(&url, &cookie, "replay").await;
    let url = offer(&bench, &state);
    let (stranger, _) = begin(&bench).await;
    again(&url, &stranger, "another browser").await;
    let location = again(&url, &cookie, "used up by the stranger").await;
    assert!(location.ends_with("&round=1"), "{location}");
    let url = offer(&bench, &state);
    again(&url, "", "no browser").await;
    let ended = get(&bench, &format!("{url}&round=4"), "").await;
    assert_eq!(ended.status(), 400, "not for ever");
}

#[tokio::test]
async fn tabs_that_come_after_the_first_go_on_with_its_session() {
    let bench = Bench::new("").await;
    let (cookie, state) = begin(&bench).await;
    let (first, second) = (offer(&bench, &state), offer(&bench, &state));
    let response = get(&bench, &first, &cookie).await;
    let both = format!("{}; {cookie}", set_cookie(&response));
    // The second code is good, the first is used up: neither needs another cookie.
    for url in [&second, &first] {
        let response = get(&bench, url, &both).await;
        assert_eq!(response.status(), 303);
        assert_eq!(header(response.headers(), "location"), "/orders");
        assert!(response.headers().get("set-cookie").is_none());
    }
    assert_eq!(get(&bench, "/", &both).await.status(), 200);
}

#[tokio::test]
async fn signing_out_at_one_app_ends_the_session_everywhere() {
    let bench = Bench::new("").await;
    let (cookie, state) = begin(&bench).await;
    let session = set_cookie(&get(&bench, &offer(&bench, &state), &cookie).await);
    let out = |origin: &str| {
        let request = bench.request("POST", "shop", "/.curfew/sign-out");
        request.header("cookie", &session).header("origin", origin)
    };
    assert_eq!(
        bench.send("shop", out("https://evil.test")).await.status(),
        403
    );
    assert_eq!(get(&bench, "/", &session).await.status(), 200);
    let own = format!("https://shop.localhost:{}", bench.port);
    let response = bench.send("shop", out(&own)).await;
    assert_eq!(response.status(), 200);
    assert_eq!(header(response.headers(), "clear-site-data"), "\"cache\"");
    assert_eq!(get(&bench, "/", &session).await.status(), 401);
    // The other cookie presented the same session.
    assert_eq!(
        bench
            .send("shop", bench.signed_in("GET", "/"))
            .await
            .status(),
        401
    );
    assert_eq!(get(&bench, "/.curfew/x", "").await.status(), 404);
}

#[tokio::test]
async fn smuggled_requests_reach_nobody() {
    let bench = Bench::new("").await;
    let head = format!(
        "Host: shop.localhost:{}\r\nCookie: __Host-curfew={}\r\n",
        bench.port, bench.cookie
    );
    let hidden = "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
    let cases = [
        format!(
            "POST / HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n{hidden}"
        ),
        format!("POST / HTTP/1.1\r\n{head}Transfer-Encoding: xchunked\r\n\r\n{hidden}"),
        format!("POST / HTTP/1.1\r\n{head}Transfer-Encoding: chunked, identity\r\n\r\n{hidden}"),
        format!("POST / HTTP/1.1\r\n{head}Transfer-Encoding : chunked\r\n\r\n{hidden}"),
        format!("POST / HTTP/1.1\r\n{head}Content-Length: 5\r\nContent-Length: 6\r\n\r\n{hidden}"),
        format!("POST / HTTP/1.0\r\n{head}Transfer-Encoding: chunked\r\n\r\n{hidden}"),
        format!("GET / HTTP/1.1\r\n{head}Host: vault.localhost\r\n\r\n"),
        format!("GET https://vault.localhost/ HTTP/1.1\r\n{head}\r\n"),
    ];
    for case in cases {
        let mut stream = bench.connect("shop", "http/1.1").await;
        stream.write_all(case.as_bytes()).await.unwrap();
        let mut answer = [0; 16];
        let read = timeout(SOON, stream.read(&mut answer))
            .await
            .unwrap()
            .unwrap();
        let line = String::from_utf8_lossy(&answer[..read]).into_owned();
        let refused = line.is_empty() || line.contains(" 40") || line.contains(" 42");
        assert!(refused, "{line} after {case}");
    }
    assert_eq!(bench.backend.requests.load(Ordering::SeqCst), 0);

    // With both lengths, hyper reads chunks and forgets the other: what follows must not count
    // as a request, and the connection ends, so that nobody's answers get out of step.
    for lengths in [
        "Content-Length: 60\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 60",
    ] {
        let both = format!("POST / HTTP/1.1\r\n{head}{lengths}\r\n\r\n{hidden}");
        let mut stream = bench.connect("shop", "http/1.1").await;
        stream.write_all(both.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut answer))
            .await
            .unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1, "{answer}");
        assert!(
            !answer.contains("HTTP/1.1 4") && !answer.contains("hidden"),
            "{answer}"
        );
    }
    assert_eq!(bench.backend.requests.load(Ordering::SeqCst), 2);

    // An offer that is not taken is as good as none: what follows is no tunnel.
    let upgrade = format!(
        "GET / HTTP/1.1\r\n{head}Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\nGET /.curfew/x HTTP/1.1\r\n{head}Connection: close\r\n\r\n"
    );
    let mut stream = bench.connect("shop", "http/1.1").await;
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answers))
        .await
        .unwrap();
    let answers = String::from_utf8_lossy(&answers);
    assert!(answers.starts_with("HTTP/1.1 200 OK"), "{answers}");
    assert!(
        !answers.contains("upgrade:") && !answers.contains("http2-settings:"),
        "{answers}"
    );
    assert!(answers.contains("HTTP/1.1 404 Not Found"), "{answers}");
}

#[tokio::test]
async fn failures_are_told_without_internals() {
    let bench = Bench::new("").await;
    let gone = bench.sign_in("gone").await;
    let request = bench
        .request("GET", "gone", "/")
        .header("cookie", format!("__Host-curfew={gone}"));
    let response = bench.send("gone", request).await;
    assert_eq!(response.status(), 502);
    let said = text(response.into_body()).await.unwrap();
    assert!(
        !said.contains("127.0.0.1") && said.contains("cannot be reached"),
        "{said}"
    );

    bench.gateway.registrar().stop().await.unwrap();
    let response = bench.send("shop", bench.signed_in("GET", "/")).await;
    assert_eq!(response.status(), 503);
    assert_eq!(header(response.headers(), "retry-after"), "5");
    assert_eq!(bench.backend.requests.load(Ordering::SeqCst), 0);
}
