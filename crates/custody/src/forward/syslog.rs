//! Syslog (RFC 5424) over TLS with octet counting (RFC 5425).
//!
//! There is no acknowledgement in that protocol but one: a receiver that gets our TLS close_notify
//! must answer with its own (section 4.4), and it got that after all messages. So entries go out at
//! once, and from time to time the connection is ended: what it carried, a window, is acknowledged
//! by the receiver's close_notify after ours.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use curfew_export::lines::syslog;
use curfew_export::{Record, Source};
use http::uri::Authority;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Room, Trouble};
use crate::causes::chain;
use crate::config::Forward;

/// A window: 4,096 entries of about 400 bytes are 1.6 MB, and 5 MB as records.
pub(super) const ROOM: Room = Room {
    records: 4_096,
    bytes: 4 * 1024 * 1024,
};

/// How long name look-up, TCP and TLS may take together.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// How long a receiver may take to make room for [`CHUNK_BYTES`].
const WRITE_TIME: Duration = Duration::from_secs(10);

/// How long it may take to confirm a window, all of which it may have still to read.
const CLOSE_TIME: Duration = Duration::from_secs(30);

/// Bytes given to TLS at once: some fifty messages.
const CHUNK_BYTES: usize = 64 * 1024;

/// See the module text.
pub(super) struct Syslog {
    host: String,
    port: u16,
    server: ServerName<'static>,
    tls: TlsConnector,
    source: Source,
    window: Duration,
    plain_close: bool,
    open: Option<Open>,
}

/// A connection, and what of the window went into it.
struct Open {
    stream: TlsStream<TcpStream>,
    sent: usize,
    since: Instant,
}

impl Syslog {
    pub(super) fn new(
        forward: &Forward,
        tls: Arc<ClientConfig>,
        source: Source,
    ) -> Result<Self, String> {
        let address = forward.address.as_deref().unwrap_or_default();
        let unfit = || format!("`{address}` is no host and port");
        let there: Authority = address.parse().map_err(|_| unfit())?;
        let host = there.host().trim_start_matches('[').trim_end_matches(']');
        let server = ServerName::try_from(host.to_owned()).map_err(|_| unfit())?;
        Ok(Self {
            host: host.to_owned(),
            port: there.port_u16().ok_or_else(unfit)?,
            server,
            tls: TlsConnector::from(tls),
            source,
            window: forward.window.0,
            plain_close: forward.plain_close,
            open: None,
        })
    }

    /// When the window that is open is to be confirmed.
    pub(super) fn due(&self) -> Option<Instant> {
        self.open.as_ref().map(|open| open.since + self.window)
    }

    /// Sends what of the window was not sent on this connection, and has it confirmed when it is
    /// time.
    pub(super) async fn deliver(
        &mut self,
        records: &[Record],
        closing: bool,
    ) -> Result<usize, Trouble> {
        // Taken out: whatever fails on the way ends the connection, and nothing on it counts.
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.connect().await?,
        };
        self.write(&mut open, records).await?;
        if closing || open.since.elapsed() >= self.window {
            self.close(open).await?;
            return Ok(records.len());
        }
        self.open = Some(open);
        Ok(0)
    }

    async fn connect(&self) -> Result<Open, Trouble> {
        let connected = timeout(CONNECT_TIME, async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
            tcp.set_nodelay(true)?;
            self.tls.connect(self.server.clone(), tcp).await
        });
        let slow = |_| Trouble::Unreachable(format!("no connection within {CONNECT_TIME:?}"));
        let connected = connected.await.map_err(slow)?;
        Ok(Open {
            stream: connected.map_err(|error| broken(&error))?,
            sent: 0,
            since: Instant::now(),
        })
    }

    async fn write(&self, open: &mut Open, records: &[Record]) -> Result<(), Trouble> {
        while open.sent < records.len() {
            still_open(&mut open.stream).await?;
            let mut chunk = String::new();
            for record in records.iter().skip(open.sent) {
                let message = syslog(record, &self.source);
                // RFC 5425 section 4.3: MSG-LEN SP SYSLOG-MSG.
                let _ = write!(chunk, "{} {message}", message.len());
                open.sent += 1;
                if chunk.len() >= CHUNK_BYTES {
                    break;
                }
            }
            let written = timeout(WRITE_TIME, async {
                open.stream.write_all(chunk.as_bytes()).await?;
                open.stream.flush().await
            });
            let slow = |_| Trouble::Unreachable(format!("it has read nothing for {WRITE_TIME:?}"));
            let written = written.await.map_err(slow)?;
            written.map_err(|error| broken(&error))?;
        }
        Ok(())
    }

    /// Ends the connection. Returns once the receiver has confirmed what it carried.
    async fn close(&self, mut open: Open) -> Result<(), Trouble> {
        still_open(&mut open.stream).await?;
        let closed = timeout(CLOSE_TIME, async {
            open.stream.shutdown().await?;
            let mut unheard = [0; 256];
            while open.stream.read(&mut unheard).await? > 0 {}
            Ok::<_, io::Error>(())
        });
        let slow = |_| Trouble::Unreachable(format!("no close_notify within {CLOSE_TIME:?}"));
        match closed.await.map_err(slow)? {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                if self.plain_close {
                    return Ok(());
                }
                Err(Trouble::Wrong(
                    "it ended the connection without close_notify, so it is not known what it \
                     got; where that is its way, set plain_close = true"
                        .to_owned(),
                ))
            }
            Err(error) => Err(broken(&error)),
        }
    }
}

fn broken(error: &io::Error) -> Trouble {
    Trouble::Unreachable(chain(error))
}

/// A receiver says nothing before we end the connection: if it does, or has ended it, then it has
/// not confirmed what it got.
async fn still_open(stream: &mut TlsStream<TcpStream>) -> Result<(), Trouble> {
    let mut unheard = [0; 256];
    // With no time it is only looked what is there.
    match timeout(Duration::ZERO, stream.read(&mut unheard)).await {
        Err(_) => Ok(()),
        Ok(Ok(0)) => Err(Trouble::Unreachable(
            "it has ended the connection".to_owned(),
        )),
        Ok(Ok(_)) => Err(Trouble::Wrong(
            "it speaks, which syslog receivers do not".to_owned(),
        )),
        Ok(Err(error)) => Err(broken(&error)),
    }
}
