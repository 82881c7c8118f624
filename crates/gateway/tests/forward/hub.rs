//! A syslog receiver over TLS that reads octet counting strictly, and ends connections as it is
//! told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

use super::{Arrived, Place};

/// How a connection is ended. The next one of the list; `Properly` where there is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ending {
    /// With close_notify, once the sender's has come.
    Properly,
    /// Without, once the sender's has come.
    Plainly,
    /// At once after so many messages.
    After(usize),
    /// With close_notify before the sender's, after so many messages.
    EarlyAfter(usize),
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// All that came, in order.
    pub(crate) arrived: Vec<Arrived>,
    /// What came over connections that were ended properly.
    pub(crate) confirmed: Vec<u64>,
    pub(crate) connections: usize,
    pub(crate) endings: VecDeque<Ending>,
}

#[derive(Clone)]
pub(crate) struct Hub {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Seen>>,
}

impl Hub {
    pub(crate) async fn start(place: &Place, endings: &[Ending]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let acceptor = place.acceptor();
        let seen = Seen {
            endings: endings.iter().copied().collect(),
            ..Seen::default()
        };
        let hub = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::new(Mutex::new(seen)),
        };
        let serving = hub.clone();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let ending = serving.see(|seen| {
                    seen.connections += 1;
                    seen.endings.pop_front().unwrap_or(Ending::Properly)
                });
                // One after the other, as they are sent.
                if let Ok(tls) = acceptor.accept(tcp).await {
                    serving.receive(tls, ending).await;
                }
            }
        });
        hub
    }

    pub(crate) fn forward(&self, more: &str) -> String {
        format!(
            "[[forward]]\nname = \"siem\"\nkind = \"syslog\"\nca = \"cert.pem\"\n\
             address = \"localhost:{}\"\n{more}",
            self.address.port()
        )
    }

    pub(crate) fn see<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap())
    }

    async fn receive(&self, mut tls: TlsStream<TcpStream>, ending: Ending) {
        let (mut held, mut came) = (Vec::new(), Vec::new());
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let Ok(read) = tls.read(&mut buffer).await else {
                return;
            };
            if read == 0 {
                break;
            }
            held.extend_from_slice(&buffer[..read]);
            while let Some(message) = take(&mut held) {
                came.push(message.index);
                self.see(|seen| seen.arrived.push(message));
                match ending {
                    Ending::After(count) if came.len() >= count => return,
                    Ending::EarlyAfter(count) if came.len() >= count => {
                        let _ = tls.shutdown().await;
                        return;
                    }
                    _ => {}
                }
            }
        }
        assert!(held.is_empty(), "a message is cut short");
        if ending == Ending::Properly {
            // First noted, then confirmed.
            self.see(|seen| seen.confirmed.extend(&came));
            let _ = tls.shutdown().await;
        }
    }
}

/// The next whole message: `MSG-LEN SP SYSLOG-MSG`, and nothing between two of them.
fn take(held: &mut Vec<u8>) -> Option<Arrived> {
    let space = held.iter().position(|byte| *byte == b' ')?;
    let len = std::str::from_utf8(&held[..space]).unwrap();
    assert!(!len.starts_with('0') && len.bytes().all(|byte| byte.is_ascii_digit()));
    let end = space + 1 + len.parse::<usize>().unwrap();
    if held.len() < end {
        return None;
    }
    let message = String::from_utf8(held[space + 1..end].to_vec()).unwrap();
    held.drain(..end);
    // Facility 13, whatever the severity.
    let (priority, _) = message[1..].split_once(">1 ").unwrap();
    assert!((104..112).contains(&priority.parse::<u32>().unwrap()));
    assert!(!message.contains('\n'));
    let field = |name: &str| {
        let (_, rest) = message.split_once(&format!(" {name}=\"")).unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    Some(Arrived {
        index: field("index").parse().unwrap(),
        leaf: field("leaf"),
    })
}
