//! Raw connections, and the look at the program after each attack.

use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::stage::{API, Person, Stage};

/// How much more memory the program may hold after an attack than before, in KiB. The largest
/// thing a stranger can make it hold is a header of 64 KiB for each connection; allocators keep
/// some of what was freed.
const GROWTH_KIB_MAX: u64 = 64 * 1_024;

/// How long a refusal may take on a busy machine; limits of time have a test of their own.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// One attack at a time, or nobody knows whose memory it is.
static ONE: Mutex<()> = Mutex::const_new(());

/// Looks at the program before and after.
pub(crate) struct Watch {
    pub(crate) stage: &'static Stage,
    pub(crate) person: Person,
    before_kib: u64,
    _one: MutexGuard<'static, ()>,
}

impl Watch {
    /// Waits for its turn, signs somebody in, and takes the measure.
    pub(crate) async fn begin(name: &str) -> Self {
        let one = ONE.lock().await;
        let stage = Stage::get().await;
        let person = stage.person(name, "worker").await;
        let watch = Self {
            stage,
            person,
            before_kib: 0,
            _one: one,
        };
        watch.serves("the beginning").await;
        Self {
            before_kib: stage.resident_kib().unwrap(),
            ..watch
        }
    }

    async fn serves(&self, after: &str) {
        let client = self.stage.http().build().unwrap();
        let request = client.get(self.stage.url(API, "/"));
        let answer = request.bearer_auth(&self.person.bearer).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("no service after {after}: {error:?}"));
        assert_eq!(answer.status(), 200, "after {after}");
    }

    /// It is alive, serves, has not grown and has not panicked.
    pub(crate) async fn unharmed(&self, after: &str) {
        self.serves(after).await;
        let now = self.stage.resident_kib();
        let grown = now.expect("it is alive").saturating_sub(self.before_kib);
        assert!(grown <= GROWTH_KIB_MAX, "{grown} KiB more after {after}");
        let log = self.stage.log();
        assert!(!log.contains("panicked"), "after {after}:\n{log}");
    }

    /// TCP to the databases.
    pub(crate) async fn postgres(&self) -> TcpStream {
        connect(self.stage.postgres).await
    }

    /// TCP to the pages.
    pub(crate) async fn web(&self) -> TcpStream {
        connect(self.stage.web).await
    }

    /// TLS over TCP, speaking this protocol.
    pub(crate) async fn tls(&self, stream: TcpStream, protocol: &[u8]) -> TlsStream<TcpStream> {
        let connector = TlsConnector::from(self.stage.tls(&[protocol]));
        let name = ServerName::try_from(API).unwrap();
        let opened = tokio::time::timeout(SOON, connector.connect(name, stream));
        opened.await.expect("TLS is answered").unwrap()
    }

    /// A connection that speaks HTTP/1.1.
    pub(crate) async fn http1(&self) -> TlsStream<TcpStream> {
        self.tls(self.web().await, b"http/1.1").await
    }
}

async fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Everything that comes until the other side closes, which it must do in time.
pub(crate) async fn until_closed(stream: &mut (impl AsyncRead + Unpin), time: Duration) -> Vec<u8> {
    let mut seen = Vec::new();
    let read = async {
        let mut chunk = [0; 16 * 1_024];
        // A reset is as good an end as any.
        while let Ok(count @ 1..) = stream.read(&mut chunk).await {
            seen.extend_from_slice(&chunk[..count]);
        }
    };
    let closed = tokio::time::timeout(time, read).await.is_ok();
    let text = String::from_utf8_lossy(&seen);
    assert!(closed, "it is not closed; it said {text:?}");
    seen
}

/// Sends while the other side still takes it.
pub(crate) async fn push(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> bool {
    let written = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    matches!(tokio::time::timeout(SOON, written).await, Ok(Ok(())))
}
