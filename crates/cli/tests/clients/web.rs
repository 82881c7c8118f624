//! Clients of the web: curl, a WebSocket library, an HTTP/2 client.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config as client_async,
};

use crate::stage::{API, APP, PORTAL, Stage};
use crate::tool::{Done, found, run};

/// How long a cut may take to be seen on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

async fn curl(stage: &Stage, arguments: &[&str], host: &str, path: &str) -> Done {
    let mut command = Command::new("curl");
    command
        .args(["-sS", "-i", "--max-time", "20", "--cacert"])
        .arg(&stage.ca)
        .arg("--resolve")
        .arg(format!("{host}:{}:127.0.0.1", stage.web))
        .args(arguments)
        .arg(stage.url(host, path));
    run(command, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_works_with_token_and_cookie_and_is_refused_after() {
    if found("curl").is_none() {
        return;
    }
    let stage = Stage::get().await;
    let person = stage.person("curl", "worker").await;
    let bearer = format!("Authorization: Bearer {}", person.bearer);
    let cookie = format!("Cookie: {}", person.cookie);
    // Beside it there may be the cookie of how the sign-in began.
    let wrong = cookie.replace("__Host-curfew=", "__Host-curfew=x");
    for (version, says) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2")] {
        let head = |done: &Done, status: &str| {
            let wanted = format!("{says} {status}");
            assert!(done.out.starts_with(&wanted), "{wanted}: {done:?}");
        };
        let got = curl(stage, &[version, "-H", &bearer], API, "/").await;
        head(&got, "200");
        assert!(got.out.ends_with("<h1>Hello curl</h1>"), "{got:?}");
        let sent = curl(stage, &[version, "-H", &bearer, "-d", "body"], API, "/").await;
        head(&sent, "200");
        assert!(sent.out.ends_with("body"), "{sent:?}");
        let page = curl(stage, &[version, "-H", &cookie], APP, "/").await;
        head(&page, "200");

        let none = curl(stage, &[version], API, "/").await;
        head(&none, "401");
        assert!(none.out.contains("Bearer realm=\"curfew\""), "{none:?}");
        let wrong = curl(stage, &[version, "-H", &wrong], APP, "/").await;
        head(&wrong, "401");
        // A cookie is for its host only.
        let other = curl(stage, &[version, "-H", &cookie], PORTAL, "/api/v1/session").await;
        head(&other, "403");
        let nothing = curl(stage, &[version, "-k"], "other.localhost", "/").await;
        head(&nothing, "421");
    }

    // A stream of events that is open when the session ends is broken off, not finished.
    let unbuffered = ["--http2", "-N", "-H", &cookie];
    let streaming = curl(stage, &unbuffered, APP, "/events");
    let ending = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        stage.end(&person.session).await;
    };
    let (stream, ()) = tokio::join!(streaming, ending);
    assert!(stream.out.contains("data: tick"), "{stream:?}");
    assert!(
        !stream.success,
        "it should have been broken off: {stream:?}"
    );
    assert!(stream.err.contains("curl: (92)"), "{stream:?}");

    for version in ["--http1.1", "--http2"] {
        let after = curl(stage, &[version, "-H", &bearer], API, "/").await;
        assert!(after.out.contains(" 401"), "{after:?}");
        assert!(after.out.contains("invalid_token"), "{after:?}");
        let page = ["-H", &cookie, "-H", "Accept: text/html"];
        let navigates = [
            "-H",
            "Sec-Fetch-Mode: navigate",
            "-H",
            "Sec-Fetch-Dest: document",
        ];
        let after = curl(
            stage,
            &[&[version][..], &page, &navigates].concat(),
            APP,
            "/",
        )
        .await;
        assert!(after.out.contains(" 303"), "{after:?}");
        assert!(after.out.contains("/sign-in?"), "{after:?}");
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn socket(stage: &Stage, host: &str, header: (&'static str, &str)) -> Result<Socket, Error> {
    let address = format!("wss://{host}:{}/ws", stage.web);
    let mut request = address.into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert(header.0, header.1.parse().unwrap());
    headers.insert("origin", stage.url(host, "").parse().unwrap());
    let stream = TcpStream::connect(("127.0.0.1", stage.web)).await.unwrap();
    let connector = Connector::Rustls(stage.tls(&[b"http/1.1"]));
    let opened = client_async(request, stream, None, Some(connector)).await;
    opened.map(|(socket, _)| socket)
}

async fn echoed(socket: &mut Socket, message: Message) {
    socket.send(message.clone()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), message);
}

/// The code a WebSocket is closed with.
async fn close_code(socket: &mut Socket) -> u16 {
    let message = tokio::time::timeout(PATIENCE, socket.next()).await;
    match message.expect("it is closed") {
        Some(Ok(Message::Close(Some(frame)))) => frame.code.into(),
        other => panic!("no close but {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_echo_and_are_closed_with_the_code_for_it() {
    let stage = Stage::get().await;
    let worker = stage.person("socket", "worker").await;
    let mut by_cookie = socket(stage, APP, ("cookie", &worker.cookie))
        .await
        .unwrap();
    let bearer = format!("Bearer {}", worker.bearer);
    let mut by_token = socket(stage, API, ("authorization", &bearer))
        .await
        .unwrap();
    for socket in [&mut by_cookie, &mut by_token] {
        echoed(socket, Message::text("hello")).await;
        echoed(socket, Message::binary(vec![7; 300_000])).await;
    }
    stage.end(&worker.session).await;
    assert_eq!(close_code(&mut by_cookie).await, 3000);
    assert_eq!(close_code(&mut by_token).await, 3000);
    match socket(stage, API, ("authorization", &bearer)).await {
        Err(Error::Http(answer)) => assert_eq!(answer.status(), 401),
        other => panic!("not refused: {other:?}"),
    }

    let guest = stage.person("socket-idle", "guest").await;
    let mut idle = socket(stage, APP, ("cookie", &guest.cookie)).await.unwrap();
    echoed(&mut idle, Message::text("hello")).await;
    assert_eq!(close_code(&mut idle).await, 3008);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_client_shares_one_connection_and_is_cut_on_it() {
    let stage = Stage::get().await;
    let person = stage.person("http2", "worker").await;
    let client = stage.http().http2_prior_knowledge().build().unwrap();
    let ask = || client.get(stage.url(API, "/")).bearer_auth(&person.bearer);
    let many = (0..20).map(|_| async { ask().send().await.unwrap() });
    for answer in futures_util::future::join_all(many).await {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    }
    let body = "x".repeat(1_000_000);
    let sent = client.post(stage.url(API, "/")).bearer_auth(&person.bearer);
    let answer = sent.body(body.clone()).send().await.unwrap();
    assert!(answer.text().await.unwrap() == body, "the body came back");

    let events = client.get(stage.url(API, "/events"));
    let events = events.bearer_auth(&person.bearer).send().await.unwrap();
    let mut events = events.bytes_stream();
    assert!(events.next().await.unwrap().unwrap().starts_with(b"data:"));
    stage.end(&person.session).await;
    let broken = async {
        loop {
            match events.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error,
                None => panic!("the stream looks finished, but it was cut"),
            }
        }
    };
    let error = tokio::time::timeout(PATIENCE, broken).await;
    let error = format!("{:?}", error.expect("it is cut"));
    assert!(error.contains("Reset("), "{error}");
    let after = ask().send().await.unwrap();
    assert_eq!(after.status(), 401);
    let challenge = after.headers()["www-authenticate"].to_str().unwrap();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
}
