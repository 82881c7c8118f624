//! A whole gateway on real sockets for tests: a resource behind it, clients in front.

#[path = "../../tests/shared/folder.rs"]
mod folder;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use curfew_authority::{Command, EndCause, Verdict};
use curfew_custody::standing::Standing;
use curfew_entry::{Aal, Credential, CredentialClass, EndReason, Factor, Proof, SessionId};
use curfew_gate::secret;
use curfew_web::{Body, Upstreams};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::WebSocketStream;
use tokio_util::sync::CancellationToken;

use self::folder::Folder;
use super::backend::{Backend, serve};
use crate::config::{Config, LEAST};
use crate::gateway::{Core, Gateway, compose};
use crate::{data, listen};

/// A gateway in front of a resource.
pub(super) struct Bench {
    pub(super) gateway: Arc<Gateway>,
    pub(super) backend: Arc<Backend>,
    pub(super) port: u16,
    pub(super) session: SessionId,
    /// The cookie of that session for `shop`.
    pub(super) cookie: String,
    tls: Arc<rustls::ClientConfig>,
    _dir: Folder,
}

const SESSIONS: &str = r#"
@id("sessions") @idle("10m") @reauth("1h") @lifetime("8h")
permit (principal, action == Action::"session.start", resource == Resource::"gateway");
"#;

/// What a session may do where a test says nothing else.
const OPEN: &str = r#"
@id("shop") permit (principal, action, resource == Resource::"shop");
@id("gone") permit (principal, action, resource == Resource::"gone");
@id("api") permit (principal, action, resource == Resource::"api");
@id("strong") @assurance("aal2") permit (principal, action, resource == Resource::"strong");
@id("no-vault") forbid (principal, action, resource == Resource::"vault");
"#;

fn config(dir: &Path, upstream: &str, gone: &str) -> Config {
    let mut text = String::from(LEAST);
    for name in ["shop", "api", "strong", "vault", "gone"] {
        let upstream = if name == "gone" { gone } else { upstream };
        text.push_str(&format!(
            "[[web]]\nname = \"{name}\"\nenvironment = \"test\"\nhost = \"{name}.localhost\"\n\
             upstream = \"{upstream}\"\nkind = \"{}\"\npassive = [\"/poll\"]\n{}",
            if name == "api" { "api" } else { "app" },
            if upstream.starts_with("https") {
                "upstream_ca = \"cert.pem\"\n"
            } else {
                ""
            },
        ));
    }
    Config::parse("curfew.toml", &text, dir).unwrap()
}

fn certificate(dir: &Path) {
    let mut names = vec!["localhost".to_owned(), "curfew.localhost".to_owned()];
    names
        .extend(["shop", "api", "strong", "vault", "gone"].map(|name| format!("{name}.localhost")));
    let CertifiedKey::<KeyPair> { cert, signing_key } =
        rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), signing_key.serialize_pem()).unwrap();
}

/// A gateway that says of itself that it listens on `port`.
async fn gateway(config: Config, rules: &str, port: u16) -> Gateway {
    data::DataDir::of(&config).create(&config.origin).unwrap();
    let policy = format!(
        "{rules}{SESSIONS}{}",
        if rules.contains("shop") { "" } else { OPEN }
    );
    let core = Core::open(&config, "policy.cedar", &policy).await.unwrap();
    let standing = Standing::new(
        Vec::new(),
        false,
        core.data.ledger(),
        &core.durability,
        &core.accounts,
        &core.conditions,
    );
    let site = Arc::new(config.site(port));
    let upstreams = Upstreams::new(&config.web).unwrap();
    let databases = curfew_postgres::Databases::default();
    let standing = Arc::new(standing);
    compose(config, core, upstreams, databases, standing, site, None).unwrap()
}

/// A body with this text.
pub(super) fn full(text: String) -> Body {
    Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body with nothing in it.
pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// What the resource behind the gateway speaks.
pub(super) enum Speaks {
    /// Cleartext HTTP/1.1.
    Plain,
    /// TLS, with HTTP/2.
    Secure,
    /// Whatever a test itself does behind this port.
    Raw(u16),
}

impl Bench {
    /// With the resource on cleartext HTTP/1.1.
    pub(super) async fn new(rules: &str) -> Self {
        Self::with(rules, Speaks::Plain, |_| {}).await
    }

    /// With the resource on TLS, with HTTP/2.
    pub(super) async fn secure(rules: &str) -> Self {
        Self::with(rules, Speaks::Secure, |_| {}).await
    }

    /// With a configuration of its own.
    pub(super) async fn with(rules: &str, speaks: Speaks, tune: impl FnOnce(&mut Config)) -> Self {
        let dir = Folder::new();
        certificate(dir.path());
        let backend = Arc::new(Backend::default());
        let scheme = if matches!(speaks, Speaks::Secure) {
            "https"
        } else {
            "http"
        };
        let port = match speaks {
            Speaks::Raw(port) => port,
            Speaks::Plain | Speaks::Secure => {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let port = listener.local_addr().unwrap().port();
                let acceptor = (scheme == "https").then(|| acceptor(dir.path()));
                tokio::spawn(serve(listener, acceptor, Arc::clone(&backend)));
                port
            }
        };
        let upstream = format!("{scheme}://localhost:{port}");
        // Nothing listens where a listener has just been let go.
        let unused = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let mut config = config(dir.path(), &upstream, &format!("http://{unused}"));
        tune(&mut config);

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shown = crate::certificate::Shown::read(&config.tls).unwrap();
        let tls = listen::tls(&shown).unwrap();
        let gateway = Arc::new(gateway(config, rules, port).await);
        let stopping = CancellationToken::new();
        tokio::spawn(listen::serve_web(
            listener,
            tls.web,
            Arc::clone(&gateway),
            stopping,
        ));
        let (session, cookie) = sign_in(&gateway, "shop").await;
        let tls = client_tls(dir.path());
        Self {
            gateway,
            backend,
            port,
            session,
            cookie,
            tls,
            _dir: dir,
        }
    }

    /// Another session with a cookie for this resource.
    pub(super) async fn sign_in(&self, resource: &str) -> String {
        sign_in(&self.gateway, resource).await.1
    }

    /// Ends the session, as an administrator would.
    pub(super) async fn end(&self) {
        let cause = EndCause {
            reason: EndReason::EndedByAdmin,
            by: None,
        };
        let command = Command::End {
            session: self.session.clone(),
            cause,
        };
        self.gateway.registrar().carry_out(command).await.unwrap();
    }

    /// A TLS connection to a host of the gateway.
    pub(super) async fn connect(&self, host: &str, protocol: &str) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        self.encrypt(stream, host, protocol).await
    }

    /// TLS over a connection to the gateway.
    pub(super) async fn encrypt(
        &self,
        stream: TcpStream,
        host: &str,
        protocol: &str,
    ) -> TlsStream<TcpStream> {
        let mut tls = (*self.tls).clone();
        tls.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = ServerName::try_from(format!("{host}.localhost")).unwrap();
        TlsConnector::from(Arc::new(tls))
            .connect(name, stream)
            .await
            .unwrap()
    }

    pub(super) fn request(&self, method: &str, host: &str, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", format!("{host}.localhost:{}", self.port))
    }

    /// A request with the session's cookie.
    pub(super) fn signed_in(&self, method: &str, path: &str) -> http::request::Builder {
        self.request(method, "shop", path)
            .header("cookie", format!("__Host-curfew={}", self.cookie))
    }

    /// Sends one request over HTTP/1.1.
    pub(super) async fn send(
        &self,
        host: &str,
        request: http::request::Builder,
    ) -> Response<Incoming> {
        self.send_body(host, request.body(empty()).unwrap()).await
    }

    pub(super) async fn send_body(&self, host: &str, request: Request<Body>) -> Response<Incoming> {
        let io = TokioIo::new(self.connect(host, "http/1.1").await);
        let client = http1::Builder::new().max_headers(1_000).handshake(io);
        let (mut sender, connection) = client.await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    }

    /// A client that speaks HTTP/2 to `shop`.
    pub(super) async fn h2(&self) -> http2::SendRequest<Body> {
        let io = TokioIo::new(self.connect("shop", "h2").await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// A request for that client.
    pub(super) fn h2_request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("https://shop.localhost:{}{path}", self.port))
            .header("cookie", format!("__Host-curfew={}", self.cookie))
    }

    /// A WebSocket to `shop`, with these headers besides the cookie.
    pub(super) async fn websocket(
        &self,
        headers: &[(&str, &str)],
    ) -> Result<WebSocketStream<TlsStream<TcpStream>>, tokio_tungstenite::tungstenite::Error> {
        self.websocket_at("/ws", headers).await
    }

    pub(super) async fn websocket_at(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<WebSocketStream<TlsStream<TcpStream>>, tokio_tungstenite::tungstenite::Error> {
        let mut request = self
            .signed_in("GET", &format!("wss://shop.localhost:{}{path}", self.port))
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let stream = self.connect("shop", "http/1.1").await;
        let request = request.body(()).unwrap();
        tokio_tungstenite::client_async(request, stream)
            .await
            .map(|(socket, _)| socket)
    }
}

async fn sign_in(gateway: &Gateway, resource: &str) -> (SessionId, String) {
    let session = secret::session_id().unwrap();
    let cookie = format!("cfc_{session}");
    let command = Command::StartSession {
        session: session.clone(),
        subject: "ada".parse().unwrap(),
        roles: BTreeSet::from(["staff".parse().unwrap()]),
        proof: Proof {
            amr: BTreeSet::from([Factor::Password]),
            aal: Aal::One,
            at: gateway.registrar().now(),
        },
        context: gateway.web.site.context("127.0.0.1".parse().unwrap()),
        credential: Credential {
            id: secret::credential_id().unwrap(),
            class: CredentialClass::Cookie,
            hash: secret::hash(&cookie),
            audience: Some(resource.parse().unwrap()),
            expires: None,
        },
    };
    match gateway.registrar().command(command).await {
        Ok(Verdict::Done | Verdict::Allow(_)) => (session, cookie),
        other => panic!("no session: {other:?}"),
    }
}

/// A resource that does with each connection, the first being 0, what `handle` does. Its port.
pub(super) async fn raw<F>(handle: impl Fn(TcpStream, usize) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(handle(stream, number));
        }
    });
    port
}

/// Reads the head of a request, and what comes along with it of its body; none where there is no
/// more.
pub(super) async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|four| four == b"\r\n\r\n") {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a body says, or that it broke off.
pub(super) async fn text(body: Incoming) -> Result<String, hyper::Error> {
    let bytes = body.collect().await?.to_bytes();
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

/// Waits until something holds, for five seconds.
pub(super) async fn until(mut holds: impl FnMut() -> bool) -> bool {
    for _ in 0..500 {
        if holds() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

fn client_tls(dir: &Path) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

fn acceptor(dir: &Path) -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}
