//! Live traffic: opened, and watched until it is cut.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use reqwest::header::COOKIE;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use super::super::stage::Stage;
use super::broken;
use super::browser::Browser;
use crate::failure::{Doing, Outcome};

/// How long after its deadline something may still be open before we give up waiting.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How early a cut may look: clocks of two processes, read one after the other.
const EARLY_MICROS: i64 = 2_000;

/// The latest cut that is as promised. The promise is 25 ms on an idle machine; a machine that
/// also builds or tests gets this much.
const LATE_MICROS: i64 = 1_000_000;

/// The end of something, as its client saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) what: String,
    pub(super) at_micros: i64,
}

/// A cut measured against its deadline.
pub(super) struct Measured {
    pub(super) name: &'static str,
    pub(super) seen: Seen,
    pub(super) late_micros: i64,
}

impl fmt::Display for Measured {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.late_micros as f64 / 1_000.0;
        write!(
            f,
            "{:<22} {:<64} {millis:6.2} ms late",
            self.name, self.seen.what
        )
    }
}

/// Microseconds since the epoch, now.
pub(super) fn now_micros() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Checks that a cut came when it had to, and said what it had to say.
pub(super) fn measure(
    name: &'static str,
    seen: Seen,
    deadline_micros: i64,
    says: &str,
) -> Outcome<Measured> {
    let late_micros = seen.at_micros - deadline_micros;
    let measured = Measured {
        name,
        seen,
        late_micros,
    };
    if !measured.seen.what.contains(says) {
        return broken(format_args!(
            "{name} ended with `{}`, not with `{says}`",
            measured.seen.what
        ));
    }
    if !(-EARLY_MICROS..=LATE_MICROS).contains(&late_micros) {
        return broken(format_args!("{name} was not cut on time: {measured}"));
    }
    Ok(measured)
}

/// A WebSocket to the sample app.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens a WebSocket with the browser's cookie, and sees one echo.
pub(super) async fn open_socket(
    stage: &Stage,
    browser: &Browser,
    tls: &ClientConfig,
) -> Outcome<Socket> {
    let shop = stage.shop();
    let address = format!("{}/ws", shop.replacen("https://", "wss://", 1));
    let mut request = address
        .into_client_request()
        .doing("the WebSocket's address")?;
    request
        .headers_mut()
        .insert(COOKIE, browser.cookies(&shop)?);
    let origin = shop.parse().doing("the app's origin")?;
    request
        .headers_mut()
        .insert(reqwest::header::ORIGIN, origin);
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, stage.ports.web));
    let stream = TcpStream::connect(here)
        .await
        .doing("Curfew does not answer")?;
    let connector = Connector::Rustls(Arc::new(tls.clone()));
    let (mut socket, _) = client_async_tls_with_config(request, stream, None, Some(connector))
        .await
        .doing("the WebSocket does not open")?;
    socket
        .send(Message::text("hello"))
        .await
        .doing("the WebSocket takes nothing")?;
    match socket.next().await {
        Some(Ok(Message::Text(text))) if text.as_str() == "hello" => Ok(socket),
        other => broken(format_args!("the WebSocket's echo was {other:?}")),
    }
}

/// Waits until a WebSocket is closed, and tells with which code.
pub(super) async fn until_closed(mut socket: Socket) -> Seen {
    loop {
        let (what, at_micros) = match socket.next().await {
            Some(Ok(Message::Close(Some(frame)))) => (
                format!("close code {} {}", u16::from(frame.code), frame.reason),
                now_micros(),
            ),
            Some(Ok(Message::Close(None))) => ("closed without a code".to_owned(), now_micros()),
            Some(Ok(_)) => continue,
            Some(Err(error)) => (error.to_string(), now_micros()),
            None => ("ended without a close".to_owned(), now_micros()),
        };
        return Seen { what, at_micros };
    }
}

/// Reads a stream of events until it ends, and tells how many there were.
pub(super) async fn until_ended(response: reqwest::Response) -> Seen {
    let mut events = 0_u32;
    let mut stream = response.bytes_stream();
    loop {
        match stream.next().await {
            Some(Ok(bytes)) => {
                let ticks = bytes.windows(5).filter(|part| part == b"data:").count();
                events += u32::try_from(ticks).unwrap_or(0);
            }
            Some(Err(_)) | None => {
                let at_micros = now_micros();
                return Seen {
                    what: format!("stream ended after {events} events"),
                    at_micros,
                };
            }
        }
    }
}
