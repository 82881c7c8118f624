//! The gateway's API as the CLI uses it, and where the token is kept.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use reqwest::header::ACCEPT_ENCODING;
use reqwest::{ClientBuilder, Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::failure::{Doing, Exit, Failure, Outcome};
use crate::trust;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// How long an answer may take: the API holds a request for news for 25 s.
const ANSWER: Duration = Duration::from_secs(60);

/// How long nothing of a long answer may come: before the first entry that is asked for, the
/// gateway reads all that are before it, some 100 million in that time.
const SILENCE: Duration = Duration::from_secs(600);

/// Which gateway.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ServerArgument {
    /// The gateway's own address, such as https://curfew.example.com. Without it: the one last
    /// signed in to.
    #[arg(long, value_name = "URL", env = "CURFEW_SERVER")]
    pub(crate) server: Option<String>,
}

/// A sign-in that is kept, in a file of mode 0600.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Saved {
    /// The gateway.
    pub(crate) server: String,
    /// The bearer token.
    pub(crate) token: String,
    /// The authorities that vouch for the gateway, where these are not the system's.
    pub(crate) ca: Option<PathBuf>,
}

/// The address in the one form by which it is kept.
pub(crate) fn normal(server: &str) -> Outcome<Url> {
    let text = if server.contains("://") {
        server.to_owned()
    } else {
        format!("https://{server}")
    };
    let wrong = |why: &str| {
        Failure::hint(
            Exit::Usage,
            format_args!("`{server}` is not a gateway's address: {why}"),
            "write it as https://curfew.example.com",
        )
    };
    let mut url = Url::parse(&text).map_err(|error| wrong(&error.to_string()))?;
    if url.scheme() != "https" {
        return Err(wrong("a token is sent over https only"));
    }
    if url.host_str().is_none() {
        return Err(wrong("it names no host"));
    }
    url.set_path("/");
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

fn folder() -> Outcome<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".config"));
    std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(home)
        .map(|base| base.join("curfew"))
        .ok_or_else(|| Failure::new(Exit::Usage, "neither XDG_CONFIG_HOME nor HOME is set"))
}

/// The file of this name that belongs to a server.
fn file_of(server: &Url, ending: &str) -> Outcome<PathBuf> {
    let host = server.host_str().unwrap_or_default();
    let port = server.port_or_known_default().unwrap_or(443);
    let safe: String = host
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' || c == '-' {
                c
            } else {
                '_'
            }
        })
        .collect();
    Ok(folder()?.join(format!("{safe}_{port}.{ending}")))
}

fn current() -> Outcome<PathBuf> {
    Ok(folder()?.join("current"))
}

/// Writes a file of mode 0600 in one step, so that a reader finds the old or the new one.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

/// Makes the CLI's own folder, for its owner only.
fn make_folder() -> Outcome<PathBuf> {
    let folder = folder()?;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(&folder).doing(folder.display())?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).doing(folder.display())?;
    Ok(folder)
}

/// Where a file of the CLI's own is.
pub(crate) fn kept_file(name: &str) -> Outcome<PathBuf> {
    Ok(folder()?.join(name))
}

/// Keeps a file of mode 0600 in the CLI's own folder.
pub(crate) fn keep_file(name: &str, bytes: &[u8]) -> Outcome {
    let path = make_folder()?.join(name);
    write_private(&path, bytes).doing(path.display())
}

/// The authorities that vouch for a server, where they are kept: they outlive a sign-out.
pub(crate) fn kept_ca(server: &str) -> Outcome<Option<PathBuf>> {
    let path = file_of(&normal(server)?, "ca.pem")?;
    Ok(path.is_file().then_some(path))
}

/// Keeps the authorities in this PEM file as those that vouch for a server, and gives where.
pub(crate) fn keep_ca(server: &str, given: &Path) -> Outcome<PathBuf> {
    trust::certificates(given)?;
    let pem = fs::read(given).doing(given.display())?;
    make_folder()?;
    let path = file_of(&normal(server)?, "ca.pem")?;
    write_private(&path, &pem).doing(path.display())?;
    Ok(path)
}

impl Saved {
    /// Keeps it, and makes its gateway the one that is meant where none is named.
    pub(crate) fn keep(&self) -> Outcome {
        let server = normal(&self.server)?;
        make_folder()?;
        let path = file_of(&server, "json")?;
        let json = serde_json::to_vec(self).doing("cannot write the token")?;
        write_private(&path, &json).doing(path.display())?;
        write_private(&current()?, self.server.as_bytes()).doing("cannot keep the server's name")
    }

    /// The sign-in for the server that is meant.
    pub(crate) fn load(which: &ServerArgument) -> Outcome<Self> {
        let none = |what: &str, server: &str| {
            Failure::hint(
                Exit::SignIn,
                format_args!("not signed in{what}"),
                format_args!("curfew login --server {server}"),
            )
        };
        let server = match &which.server {
            Some(server) => server.clone(),
            None => fs::read_to_string(current()?)
                .map_err(|_| none("", "https://curfew.example.com"))?,
        };
        let url = normal(&server)?;
        let path = file_of(&url, "json")?;
        let json = fs::read(&path).map_err(|_| none(&format!(" at {url}"), url.as_str()))?;
        let mode = fs::metadata(&path)
            .doing(path.display())?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(Failure::hint(
                Exit::Usage,
                format_args!("{} can be read by others", path.display()),
                format_args!("chmod 600 {}", path.display()),
            ));
        }
        serde_json::from_slice(&json).doing(path.display())
    }

    /// Forgets it.
    pub(crate) fn forget(&self) -> Outcome {
        let path = file_of(&normal(&self.server)?, "json")?;
        fs::remove_file(&path).doing(path.display())
    }
}

/// Whether a name means this machine (RFC 6761 section 6.3), which resolvers do not all know.
pub(crate) fn is_local(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

/// Talks to one gateway.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    ca: Option<PathBuf>,
    token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Problem {
    error: String,
    error_description: Option<String>,
    hint: Option<String>,
}

/// What an endpoint said no with, where the caller wants to look at it.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// The error code.
    pub(crate) error: String,
    text: String,
    hint: Option<String>,
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        let exit = match refused.status {
            StatusCode::UNAUTHORIZED => Exit::SignIn,
            StatusCode::FORBIDDEN => Exit::Refused,
            _ => Exit::Failed,
        };
        match refused.hint {
            Some(hint) => Self::hint(exit, refused.text, hint),
            None => Self::new(exit, refused.text),
        }
    }
}

impl Client {
    /// A client without a token.
    pub(crate) fn new(server: &str, ca: Option<&Path>) -> Outcome<Self> {
        let base = normal(server)?;
        let builder = Self::builder(&base, ca)?.timeout(ANSWER);
        Ok(Self {
            http: builder.build().doing("cannot set up TLS")?,
            base,
            ca: ca.map(Path::to_owned),
            token: None,
        })
    }

    fn builder(base: &Url, ca: Option<&Path>) -> Outcome<ClientBuilder> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("curfew/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = ca {
            builder = builder.tls_backend_preconfigured(trust::config(path)?);
        }
        if let Some(host) = base.host_str().filter(|host| is_local(host)) {
            builder = builder.resolve(host, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        }
        Ok(builder)
    }

    /// A client for a sign-in that was kept.
    pub(crate) fn signed_in(saved: &Saved) -> Outcome<Self> {
        let mut client = Self::new(&saved.server, saved.ca.as_deref())?;
        client.token = Some(saved.token.clone());
        Ok(client)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        form: Option<&[(&str, &str)]>,
    ) -> Outcome<Response> {
        let url = self.base.join(path).doing(path)?;
        let mut request = self.http.request(method, url);
        if let Some(form) = form {
            request = request.form(form);
        }
        self.execute(request).await
    }

    async fn execute(&self, mut request: RequestBuilder) -> Outcome<Response> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        request.send().await.map_err(|error| {
            let server = self.base.as_str().trim_end_matches('/');
            match trust::certificate_error(&error) {
                Some(why) => {
                    let (text, hint) = trust::advice(why, server, self.ca.as_deref());
                    let text = format!("{server} is not trusted: {text}");
                    Failure::hint(Exit::Failed, text, hint)
                }
                None => Failure::failed(format!("{server} cannot be reached: {}", cause(&error))),
            }
        })
    }

    async fn read<T: DeserializeOwned>(response: Response) -> Outcome<Result<T, Refused>> {
        let status = response.status();
        let bytes = response.bytes().await.doing("the answer was cut short")?;
        if status.is_success() {
            let body = if bytes.is_empty() { b"null" } else { &*bytes };
            return Ok(Ok(
                serde_json::from_slice(body).doing("the answer makes no sense")?
            ));
        }
        let problem: Option<Problem> = serde_json::from_slice(&bytes).ok();
        Ok(Err(match problem {
            Some(problem) => Refused {
                status,
                text: problem
                    .error_description
                    .unwrap_or_else(|| problem.error.clone()),
                error: problem.error,
                hint: problem.hint,
            },
            None => Refused {
                status,
                error: String::new(),
                text: format!("the gateway answered {status}"),
                hint: None,
            },
        }))
    }

    /// Begins to read something long: as long as anything comes within [`SILENCE`]. `gzip`: packed,
    /// where the gateway does that.
    pub(crate) async fn stream(&self, path: &str, gzip: bool) -> Outcome<Response> {
        let mut client = self.clone();
        client.http = Self::builder(&self.base, self.ca.as_deref())?
            .read_timeout(SILENCE)
            .build()
            .doing("cannot set up TLS")?;
        let url = self.base.join(path).doing(path)?;
        let mut request = client.http.get(url);
        if gzip {
            request = request.header(ACCEPT_ENCODING, "gzip");
        }
        let response = client.execute(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        match Self::read::<serde_json::Value>(response).await? {
            Err(refused) => Err(refused.into()),
            Ok(_) => Err(Failure::failed("the answer makes no sense")),
        }
    }

    /// Reads something.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Outcome<T> {
        let response = self.send(Method::GET, path, None).await?;
        Ok(Self::read(response).await??)
    }

    /// Does something.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str) -> Outcome<T> {
        let response = self.send(Method::POST, path, None).await?;
        Ok(Self::read(response).await??)
    }

    /// Sends a form; what is refused is the caller's to judge.
    pub(crate) async fn form<T: DeserializeOwned>(
        &self,
        path: &str,
        form: &[(&str, &str)],
    ) -> Outcome<Result<T, Refused>> {
        let response = self.send(Method::POST, path, Some(form)).await?;
        Self::read(response).await
    }
}

/// An error with what caused it: the outermost alone says little.
pub(crate) fn cause(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(inner) = next {
        text = inner.to_string();
        next = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_in_the_forms_people_write() {
        assert_eq!(
            normal("curfew.example.com").unwrap().as_str(),
            "https://curfew.example.com/"
        );
        assert_eq!(
            normal("https://a:8443/x?y#z").unwrap().as_str(),
            "https://a:8443/"
        );
        assert!(
            normal("http://a").is_err(),
            "a token never goes over plain http"
        );
        assert!(normal("https://").is_err());
    }

    /// A gateway with a certificate that is its own authority, which answers anything with `{}`.
    async fn own_authority(dir: &Path) -> (String, PathBuf) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        let ca = dir.join("ca.pem");
        fs::write(&ca, made.pem()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.der().clone()], key)
            .unwrap();
        let tls = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = tls.accept(stream).await else {
                    continue;
                };
                let mut asked = [0; 4_096];
                let _ = stream.read(&mut asked).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            }
        });
        (format!("https://localhost:{port}"), ca)
    }

    #[tokio::test]
    async fn a_certificate_that_nobody_vouches_for_is_told_with_what_helps() {
        let dir = tempfile::tempdir().unwrap();
        let (server, ca) = own_authority(dir.path()).await;
        let get = async |server: &str, ca: Option<&Path>| {
            let client = Client::new(server, ca).unwrap();
            let got: Outcome<serde_json::Value> = client.get("x").await;
            got.map_err(|failure| {
                // Without the line ends that it has by the width of a terminal.
                let text = failure.text();
                text.replace(|c: char| c.is_whitespace() || c == '│', "")
            })
        };
        let told = get(&server, None).await.unwrap_err();
        let wanted = format!("curfewlogin--server{server}--caFILE");
        assert!(
            told.contains("isnottrusted") && told.contains(&wanted),
            "{told}"
        );
        assert_eq!(get(&server, Some(&ca)).await, Ok(serde_json::json!({})));
        let other = server.replace("localhost", "other.localhost");
        let told = get(&other, Some(&ca)).await.unwrap_err();
        assert!(told.contains("foranothername"), "{told}");
        let (_, stranger) = own_authority(&{
            let other = dir.path().join("other");
            fs::create_dir(&other).unwrap();
            other
        })
        .await;
        let told = get(&server, Some(&stranger)).await.unwrap_err();
        assert!(told.contains("mayhaveanewcertificate"), "{told}");
    }

    #[test]
    fn what_is_kept_is_private_from_the_first_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token.json");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn only_names_of_this_machine_are_resolved_here() {
        assert!(is_local("shop.localhost") && is_local("localhost"));
        assert!(!is_local("localhost.example.com") && !is_local("notlocalhost"));
    }
}
