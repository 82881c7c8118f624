//! A client that speaks the protocol byte by byte.

use bytes::{BufMut, BytesMut};
use postgres_protocol::authentication::sasl;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::world::Person;

/// A client that speaks the protocol byte by byte.
pub(crate) struct Raw {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) read: BytesMut,
    pub(crate) key: Vec<u8>,
    pub(crate) negotiated: Option<Vec<u8>>,
}

/// The startup packet of a person.
pub(crate) fn startup(person: &Person, version: i32) -> BytesMut {
    startup_to("orders", person, version)
}

fn startup_to(database: &str, person: &Person, version: i32) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_i32(version);
    for text in ["user", &person.name, "database", database] {
        body.extend_from_slice(text.as_bytes());
        body.put_u8(0);
    }
    body.put_u8(0);
    let mut packet = BytesMut::new();
    packet.put_i32(i32::try_from(body.len()).unwrap() + 4);
    packet.extend_from_slice(&body);
    packet
}

impl Raw {
    /// A client that stands after ReadyForQuery.
    pub(super) async fn connect(
        stream: TlsStream<TcpStream>,
        person: &Person,
        version: i32,
    ) -> Self {
        Self::connect_to("orders", stream, person, version).await
    }

    /// The same to a database that the server knows by another name.
    pub(super) async fn connect_to(
        database: &str,
        stream: TlsStream<TcpStream>,
        person: &Person,
        version: i32,
    ) -> Self {
        let mut raw = Self {
            stream,
            read: BytesMut::new(),
            key: Vec::new(),
            negotiated: None,
        };
        raw.start(database, person, version).await;
        raw
    }

    async fn start(&mut self, database: &str, person: &Person, version: i32) {
        self.send(&startup_to(database, person, version)).await;
        let mut scram = sasl::ScramSha256::new(
            person.password.as_bytes(),
            sasl::ChannelBinding::unsupported(),
        );
        loop {
            let (tag, body) = self.next().await.expect("a message");
            let mut out = BytesMut::new();
            match (tag, body.get(..4)) {
                (b'R', Some([0, 0, 0, 10])) => {
                    let mechanism = sasl::SCRAM_SHA_256;
                    frontend::sasl_initial_response(mechanism, scram.message(), &mut out).unwrap();
                }
                (b'R', Some([0, 0, 0, 11])) => {
                    scram.update(&body[4..]).unwrap();
                    frontend::sasl_response(scram.message(), &mut out).unwrap();
                }
                (b'R', Some([0, 0, 0, 12])) => scram.finish(&body[4..]).unwrap(),
                (b'v', _) => self.negotiated = Some(body.to_vec()),
                (b'K', _) => self.key = body.to_vec(),
                (b'Z', _) => return,
                (b'E', _) => panic!("{}", String::from_utf8_lossy(&body)),
                _ => {}
            }
            self.send(&out).await;
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.unwrap();
    }

    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Sends what these calls write.
    pub(crate) async fn say(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let mut out = BytesMut::new();
        write(&mut out);
        self.send(&out).await;
    }

    /// The next message; none at the end.
    pub(crate) async fn next(&mut self) -> Option<(u8, BytesMut)> {
        loop {
            if let Some(head) = self.read.get(..5) {
                let length = i32::from_be_bytes(head[1..].try_into().unwrap());
                let total = usize::try_from(length).unwrap() + 1;
                if self.read.len() >= total {
                    let mut message = self.read.split_to(total);
                    return Some((message[0], message.split_off(5)));
                }
            }
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The types of all messages up to the next ReadyForQuery, its status last. Errors are told
    /// with their SQLSTATE.
    pub(crate) async fn until_ready(&mut self) -> String {
        let mut seen = String::new();
        loop {
            let Some((tag, body)) = self.next().await else {
                return seen + " end";
            };
            match tag {
                b'Z' => return format!("{seen}Z{}", char::from(body[0])),
                b'E' => seen += &format!("E({})", field(&body, b'C')),
                b'N' => {}
                tag => seen.push(char::from(tag)),
            }
        }
    }
}

/// One field of an ErrorResponse's body.
pub(crate) fn field(body: &[u8], field: u8) -> String {
    body.split(|byte| *byte == 0)
        .find(|part| part.first() == Some(&field))
        .map(|part| String::from_utf8_lossy(&part[1..]).into_owned())
        .unwrap_or_default()
}
