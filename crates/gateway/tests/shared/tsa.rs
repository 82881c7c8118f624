//! A timestamping authority on this machine: OpenSSL behind HTTP, which can be made to misbehave.

#[path = "left_out.rs"]
mod left_out;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How it answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// As it should.
    Good,
    /// With something that is no token.
    Garbage,
    /// With status 503.
    Busy,
    /// With what it answered first.
    Stale,
    /// Signed by one whom nobody vouches for.
    Stranger,
    /// By a clock ten years behind.
    Late,
    /// Not at all, while the connection stays open.
    Silent,
}

/// OpenSSL is not installed here, and that is said.
pub(crate) fn is_missing() -> bool {
    let found = Command::new("openssl")
        .arg("version")
        .stdout(Stdio::null())
        .status();
    if found.is_err() {
        left_out::left_out("openssl", "openssl is not installed");
    }
    found.is_err()
}

/// Runs OpenSSL in `dir`.
pub(crate) fn openssl(dir: &Path, words: &str) {
    let mut program = Command::new("openssl");
    let output = program.args(words.split_whitespace()).current_dir(dir);
    let output = output.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {words}: {told}");
}

/// `NAME.pem` and `NAME.key`, and the root `NAME-root.pem` that vouches for it.
fn make(dir: &Path, name: &str) {
    let named = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let write = |name: String, text: String| std::fs::write(dir.join(name), text).unwrap();
    let mut params = named(&format!("{name} root"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().pem();
    write(format!("{name}-root.pem"), root);
    let root = Issuer::new(params, key);
    let mut params = named(name);
    let purpose = vec![0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 8];
    let mut usage = CustomExtension::from_oid_content(&[2, 5, 29, 37], purpose);
    usage.set_criticality(true);
    params.custom_extensions.push(usage);
    let key = KeyPair::generate().unwrap();
    let own = params.signed_by(&key, &root).unwrap().pem();
    write(format!("{name}.pem"), own);
    write(format!("{name}.key"), key.serialize_pem());
}

/// The authority `tsa`, vouched for by `root()`.
pub(crate) struct Tsa {
    folder: tempfile::TempDir,
    address: SocketAddr,
    state: Mutex<State>,
}

struct State {
    mode: Mode,
    first: Option<Vec<u8>>,
    asked: usize,
}

impl Tsa {
    /// Where it will be; nobody listens there before [`Tsa::serve`].
    pub(crate) fn new(address: SocketAddr) -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), "tsa");
        make(folder.path(), "stranger");
        let config = "[tsa]\nserial = serial\nsigner_digest = sha256\ndefault_policy = 1.2.3.4.1\n\
                      digests = sha256\naccuracy = secs:1\ness_cert_id_alg = sha256\n";
        std::fs::write(folder.path().join("tsa.cnf"), config).unwrap();
        std::fs::write(folder.path().join("serial"), "01\n").unwrap();
        let state = Mutex::new(State {
            mode: Mode::Good,
            first: None,
            asked: 0,
        });
        Arc::new(Self {
            folder,
            address,
            state,
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/tsr", self.address)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("tsa-root.pem")
    }

    /// What vouches for somebody else.
    #[allow(dead_code, reason = "not every test has it looked for")]
    pub(crate) fn stranger_root(&self) -> PathBuf {
        self.folder.path().join("stranger-root.pem")
    }

    pub(crate) fn behave(&self, mode: Mode) {
        self.state().mode = mode;
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.state().asked
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) async fn serve(self: &Arc<Self>) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let tsa = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tsa.answer(stream).await;
            }
        });
    }

    async fn answer(self: &Arc<Self>, mut stream: TcpStream) {
        let query = received(&mut stream).await;
        let mode = {
            let mut state = self.state();
            state.asked += 1;
            state.mode
        };
        if mode == Mode::Silent {
            // Held open for as long as the other side waits.
            tokio::spawn(async move { stream.read_u8().await });
            return;
        }
        let tsa = Arc::clone(self);
        let reply = tokio::task::spawn_blocking(move || tsa.reply(mode, &query)).await;
        let status = if mode == Mode::Busy {
            "503 Busy"
        } else {
            "200 OK"
        };
        let reply = reply.unwrap();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/timestamp-reply\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            reply.len()
        );
        // Whoever asked may have gone.
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&reply).await;
    }

    fn reply(&self, mode: Mode, query: &[u8]) -> Vec<u8> {
        let dir = self.folder.path();
        let signer = if mode == Mode::Stranger {
            "stranger"
        } else {
            "tsa"
        };
        std::fs::write(dir.join("query"), query).unwrap();
        openssl(
            dir,
            &format!(
                "ts -reply -config tsa.cnf -section tsa -queryfile query -signer {signer}.pem \
                 -inkey {signer}.key -out reply"
            ),
        );
        let fresh = std::fs::read(dir.join("reply")).unwrap();
        let mut state = self.state();
        let first = state.first.get_or_insert_with(|| fresh.clone()).clone();
        match mode {
            Mode::Garbage => b"<html>".to_vec(),
            Mode::Stale => first,
            Mode::Late => late(dir),
            Mode::Good | Mode::Busy | Mode::Stranger | Mode::Silent => fresh,
        }
    }
}

/// The last reply, signed anew with a time ten years before.
fn late(dir: &Path) -> Vec<u8> {
    openssl(dir, "ts -reply -in reply -token_out -out token");
    openssl(
        dir,
        "cms -verify -binary -noverify -inform DER -in token -out info",
    );
    let mut info = std::fs::read(dir.join("info")).unwrap();
    // A GeneralizedTime of 15 characters: YYYYMMDDhhmmssZ.
    let at = info
        .windows(4)
        .position(|found| found == [0x18, 15, b'2', b'0']);
    let decade = at.unwrap() + 4;
    info[decade] -= 1;
    std::fs::write(dir.join("info"), info).unwrap();
    openssl(
        dir,
        "cms -sign -in info -binary -nodetach -econtent_type 1.2.840.113549.1.9.16.1.4 -outform DER \
         -md sha256 -signer tsa.pem -inkey tsa.key -out forged -cades",
    );
    let token = std::fs::read(dir.join("forged")).unwrap();
    let granted = [0x30, 3, 2, 1, 0];
    let len = u16::try_from(granted.len() + token.len()).unwrap();
    [&[0x30, 0x82], &len.to_be_bytes()[..], &granted, &token].concat()
}

/// The body of a request that is what RFC 3161 wants it to be.
async fn received(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 4_096];
        let count = stream.read(&mut part).await.unwrap();
        assert_ne!(count, 0, "half a request");
        bytes.extend_from_slice(&part[..count]);
        let Some(end) = bytes.windows(4).position(|found| found == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with("post /tsr "), "{head}");
        assert!(head.contains("content-type: application/timestamp-query"));
        let mut lines = head.lines();
        let len = lines.find_map(|line| line.strip_prefix("content-length: "));
        let len: usize = len.unwrap().parse().unwrap();
        if bytes.len() >= end + 4 + len {
            return bytes.split_off(end + 4);
        }
    }
}
