//! A gateway of its own for each test, and a browser that is easy to look into.

#[path = "../shared/gateway.rs"]
mod gateway;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use curfew_entry::{Span, SubjectName};
use curfew_gateway::data::DataDir;
use curfew_identity::{TotpSecret, totp};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use gateway::Gateway;

pub(crate) const PORTAL: &str = "curfew.localhost";
pub(crate) const PASSWORD: &str = "violet anchor 7 lanterns";

pub(crate) const POLICY: &str = r#"
@id("sessions") @idle("15m") @reauth("12h") @lifetime("24h")
permit (principal in Role::"staff", action == Action::"session.start", resource);

@id("admins") @idle("15m") @reauth("12h") @lifetime("24h")
permit (principal in Role::"admin",
        action in [Action::"session.list", Action::"session.end", Action::"log.read",
                   Action::"log.reveal", Action::"log.erase"], resource);

@id("work") @idle("15m") @reauth("12h") @lifetime("24h")
permit (principal in Role::"staff",
        action in [Action::"web.read", Action::"web.write", Action::"sql.connect"], resource)
unless { resource.name == "vault" };

@id("auditors-only") @reason("Ask an auditor for what you need of the log.")
forbid (principal == Subject::"bob", action == Action::"log.read", resource);
"#;

pub(crate) const CONFIG: &str = r#"
data = "data"
policy = "policy.cedar"
origin = "curfew.test/log"
portal = "curfew.localhost"
[listen]
web = "127.0.0.1:0"
postgres = "127.0.0.1:0"
[tls]
certificate = "cert.pem"
key = "key.pem"
[[web]]
name = "shop"
environment = "production"
host = "shop.localhost"
upstream = "http://127.0.0.1:9"
[[web]]
name = "vault"
environment = "production"
host = "vault.localhost"
upstream = "http://127.0.0.1:9"
[[postgres]]
name = "orders"
environment = "production"
host = "127.0.0.1"
port = 9
database = "orders"
user = "curfew"
trust = "classifier"
tls = "disable"
"#;

/// A running gateway with three accounts: `ada` and `cyd` (staff, admin) and `bob` (staff). `eve` has no role.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    secrets: BTreeMap<String, TotpSecret>,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(CONFIG).await
    }

    /// With this configuration.
    pub(crate) async fn with(config: &str) -> Self {
        let hosts = [PORTAL, "shop.localhost", "vault.localhost"];
        let prepare = |_: &Path, data: &DataDir| accounts(data);
        let (gateway, secrets) = Gateway::start(&hosts, config, POLICY, prepare).await;
        Self { gateway, secrets }
    }

    pub(crate) fn portal_url(&self) -> String {
        format!("https://{PORTAL}:{}", self.gateway.running.web.port())
    }

    pub(crate) fn browser(&self) -> Browser<'_> {
        Browser {
            world: self,
            cookies: BTreeMap::new(),
            signed_in: 0,
            bearer: None,
        }
    }

    /// A browser in which `name` is signed in.
    pub(crate) async fn signed_in(&self, name: &str) -> Browser<'_> {
        let mut browser = self.browser();
        let answer = browser.sign_in(name, "").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        browser
    }

    /// The first or second code of an account that has not been used yet. Both are still good if
    /// the next half minute begins before they are looked at.
    pub(crate) fn code(&self, name: &str, n: u64) -> String {
        let now = self.gateway.running.now();
        let step = Span::from_secs(30);
        let at = if n == 0 {
            now
        } else {
            now.saturating_add(step)
        };
        totp::code(&self.secrets[name], at)
    }

    /// A connection to the portal, for what no client does.
    pub(crate) async fn connect(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.gateway.running.web).await.unwrap();
        let name = ServerName::try_from(PORTAL).unwrap();
        let tls = TlsConnector::from(Arc::clone(&self.gateway.tls));
        tls.connect(name, stream).await.unwrap()
    }

    async fn send(&self, request: Request<Full<bytes::Bytes>>) -> Answer {
        let stream = self.connect().await;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let answer = sender.send_request(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status,
            headers: head.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
            bytes: body,
        }
    }
}

fn accounts(data: &DataDir) -> BTreeMap<String, TotpSecret> {
    let accounts = data.accounts(&data.master().unwrap()).unwrap();
    let people = [
        ("ada", &["staff", "admin"][..]),
        ("bob", &["staff"]),
        ("cyd", &["staff", "admin"]),
        ("eve", &[]),
    ];
    people
        .into_iter()
        .map(|(name, roles)| {
            let subject: SubjectName = name.parse().unwrap();
            let roles = roles.iter().map(|role| role.parse().unwrap()).collect();
            let made = accounts
                .add(&subject, roles, &PASSWORD.to_owned().into())
                .unwrap();
            let secret = TotpSecret::from_base32(made.secret.expose_secret()).unwrap();
            (name.to_owned(), secret)
        })
        .collect()
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// As text, as far as it is text.
    pub(crate) body: String,
    pub(crate) bytes: bytes::Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn location(&self) -> &str {
        self.header("location")
    }

    pub(crate) fn set_cookie(&self, name: &str) -> Option<String> {
        self.headers
            .get_all(header::SET_COOKIE)
            .iter()
            .map(|value| value.to_str().unwrap().to_owned())
            .find(|text| text.starts_with(&format!("{name}=")))
    }

    /// The token of the first form in the page.
    pub(crate) fn csrf(&self) -> String {
        let (_, rest) = self
            .body
            .split_once("name=\"csrf\" value=\"")
            .expect("a form");
        rest.split_once('"').unwrap().0.to_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }
}

/// A client with cookies, or with a bearer token.
pub(crate) struct Browser<'w> {
    pub(crate) world: &'w World,
    pub(crate) cookies: BTreeMap<String, String>,
    pub(crate) bearer: Option<String>,
    signed_in: u64,
}

impl Browser<'_> {
    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], &[]).await
    }

    pub(crate) async fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.send(Method::POST, path, form, &[]).await
    }

    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        form: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Answer {
        let encode = |text| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
                .to_string()
        };
        let pairs: Vec<String> = form
            .iter()
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        let mut request = Request::builder().method(method.clone()).uri(path).header(
            header::HOST,
            format!("{PORTAL}:{}", self.world.gateway.running.web.port()),
        );
        if method == Method::POST {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        if !self.cookies.is_empty() {
            let cookies: Vec<String> = self
                .cookies
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            request = request.header(header::COOKIE, cookies.join("; "));
        }
        if let Some(token) = &self.bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(pairs.join("&"))).unwrap();
        let answer = self.world.send(request).await;
        self.keep_cookies(&answer);
        answer
    }

    fn keep_cookies(&mut self, answer: &Answer) {
        for set in answer.headers.get_all(header::SET_COOKIE) {
            let set = set.to_str().unwrap();
            let (pair, attributes) = set.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// Fills in the sign-in form that `query` leads to.
    pub(crate) async fn sign_in(&mut self, name: &str, query: &str) -> Answer {
        let page = self.get(&format!("/sign-in{query}")).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        let csrf = page.csrf();
        let code = self.next_code(name);
        let hidden: Vec<(String, String)> = ["resource", "to", "state", "aal"]
            .iter()
            .map(|field| ((*field).to_owned(), hidden(&page.body, field)))
            .collect();
        let mut form = vec![
            ("csrf", csrf.as_str()),
            ("name", name),
            ("password", PASSWORD),
            ("code", &code),
        ];
        form.extend(
            hidden
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        self.post("/sign-in", &form).await
    }

    pub(crate) fn next_code(&mut self, name: &str) -> String {
        self.signed_in += 1;
        self.world.code(name, self.signed_in - 1)
    }

    /// Codes that another browser of the same person has used.
    pub(crate) fn codes_used(&mut self, count: u64) {
        self.signed_in += count;
    }

    pub(crate) fn session_cookie(&self) -> String {
        self.cookies["__Host-curfew"].clone()
    }
}

/// The value of a hidden field.
fn hidden(html: &str, name: &str) -> String {
    let (_, rest) = html
        .split_once(&format!("name=\"{name}\" value=\""))
        .unwrap();
    let value = rest.split_once('"').unwrap().0;
    value.replace("&#38;", "&").replace("&#34;", "\"")
}

/// Everything the ledger holds, as JSON.
pub(crate) fn ledger(world: &World) -> Vec<serde_json::Value> {
    let mut reader = curfew_ledger::LogReader::open(&world.gateway.ledger()).unwrap();
    reader.refresh().unwrap();
    let entries = reader
        .tail(reader.size())
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    entries
        .iter()
        .map(|(_, bytes)| serde_json::from_slice(bytes).unwrap())
        .collect()
}

/// How many entries of a kind there are.
pub(crate) fn count(world: &World, kind: &str) -> usize {
    ledger(world)
        .iter()
        .filter(|entry| entry["kind"] == kind)
        .count()
}
