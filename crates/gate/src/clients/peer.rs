//! Who a connection and a request come from, where load balancers and proxies stand before Curfew.
//!
//! Only those that the configuration names are believed, and each in one way alone: a proxy that
//! writes one field and lets clients write another says nothing by the other.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, HeaderName, header};
use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::{ClientHeader, Listen, Listener};

/// How long a proxy's header may take: it is the first thing on a new connection.
const INTRODUCTION: Duration = Duration::from_secs(10);

/// What every PROXY header has at least: the signature of version 2. Version 1's shortest line has
/// 15 bytes.
const START_BYTES: usize = 12;
const V2_SIGNATURE: &[u8; START_BYTES] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version, family and length.
const V2_HEAD_BYTES: usize = 16;
/// The longest line of version 1, as its specification says.
const V1_BYTES_MAX: usize = 107;
/// Addresses, and what a proxy knows of the client's TLS: a certificate at most.
const V2_BODY_BYTES_MAX: usize = 8 * 1024;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client at the other end of a connection: the one that a trusted proxy names in its PROXY
/// header where `listener` expects one, the peer itself otherwise.
///
/// # Errors
/// When a trusted proxy does not begin with the header it is expected to send.
pub async fn introduce(
    stream: &mut TcpStream,
    peer: SocketAddr,
    listen: &Listen,
    listener: Listener,
) -> io::Result<IpAddr> {
    let peer = peer.ip().to_canonical();
    if !listen.proxy_protocol.contains(&listener) || !listen.trusts(peer) {
        return Ok(peer);
    }
    let introduced = tokio::time::timeout(INTRODUCTION, proxied(stream)).await??;
    Ok(introduced.map_or(peer, |address| address.to_canonical()))
}

/// Reads a PROXY header, and not a byte more. None where the proxy speaks for itself.
async fn proxied(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let mut header = vec![0; START_BYTES];
    stream.read_exact(&mut header).await?;
    if header == V2_SIGNATURE {
        header.resize(V2_HEAD_BYTES, 0);
        stream
            .read_exact(header.get_mut(START_BYTES..).unwrap_or_default())
            .await?;
        let length = header.last_chunk().copied().map_or(0, u16::from_be_bytes);
        let length = usize::from(length);
        if length > V2_BODY_BYTES_MAX {
            return Err(no_header());
        }
        header.resize(V2_HEAD_BYTES + length, 0);
        stream
            .read_exact(header.get_mut(V2_HEAD_BYTES..).unwrap_or_default())
            .await?;
    } else {
        while !header.ends_with(b"\r\n") {
            if header.len() >= V1_BYTES_MAX || !header.starts_with(b"PROXY") {
                return Err(no_header());
            }
            header.push(stream.read_u8().await?);
        }
    }
    let config = ParseConfig {
        include_tlvs: false,
        ..ParseConfig::default()
    };
    let (parsed, length) = ProxyHeader::parse(&header, config).map_err(|_| no_header())?;
    if length != header.len() {
        return Err(no_header());
    }
    Ok(parsed.proxied_address().map(|address| address.source.ip()))
}

fn no_header() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a trusted proxy did not begin with a PROXY header",
    )
}

/// The client that a request is for, which came over a connection from `peer`.
pub fn of_request(headers: &HeaderMap, peer: IpAddr, listen: &Listen) -> IpAddr {
    let Some(field) = listen.client_header.filter(|_| listen.trusts(peer)) else {
        return peer;
    };
    let mut client = peer;
    // From the last one, which the trusted peer added itself, back to the first that is not
    // trusted. Whatever stands before that is hearsay.
    for address in hops(headers, field).into_iter().rev() {
        let Some(address) = address else { break };
        client = address.to_canonical();
        if !listen.trusts(client) {
            break;
        }
    }
    client
}

/// The addresses that proxies have added, in order; none for one that is no address.
fn hops(headers: &HeaderMap, field: ClientHeader) -> Vec<Option<IpAddr>> {
    let name = match field {
        ClientHeader::XForwardedFor => X_FORWARDED_FOR,
        ClientHeader::Forwarded => header::FORWARDED,
    };
    let values = headers.get_all(name).iter();
    let hops = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    hops.map(|hop| {
        let hop = std::str::from_utf8(hop).ok()?.trim();
        match field {
            ClientHeader::XForwardedFor => node(hop),
            ClientHeader::Forwarded => hop.split(';').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                let is_for = name.trim().eq_ignore_ascii_case("for");
                is_for.then(|| node(value.trim().trim_matches('"')))?
            }),
        }
    })
    .collect()
}

/// An address, with or without a port and brackets (RFC 7239 section 6).
fn node(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    fn listen(text: &str) -> Listen {
        toml::from_str(&format!("web = \"127.0.0.1:0\"\n{text}")).unwrap()
    }

    fn client(field: &str, values: &[&str], peer: &str) -> String {
        let listen = listen(&format!(
            "trusted_proxies = [\"10.0.0.0/8\", \"fd00::/8\"]\nclient_header = \"{field}\"\n"
        ));
        let mut headers = HeaderMap::new();
        for value in values {
            let name = HeaderName::from_bytes(field.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        // Hearsay in the other one.
        let other = if field == "forwarded" {
            "x-forwarded-for"
        } else {
            "forwarded"
        };
        headers.append(other, HeaderValue::from_static("for=6.6.6.6"));
        of_request(&headers, peer.parse().unwrap(), &listen).to_string()
    }

    #[test]
    fn only_what_trusted_proxies_added_is_believed() {
        let xff = "x-forwarded-for";
        for (values, peer, wanted) in [
            (vec!["203.0.113.9"], "10.0.0.1", "203.0.113.9"),
            (vec!["203.0.113.9"], "192.0.2.1", "192.0.2.1"),
            (vec![], "10.0.0.1", "10.0.0.1"),
            (
                vec!["1.1.1.1, 203.0.113.9, 10.0.0.2"],
                "10.0.0.1",
                "203.0.113.9",
            ),
            (
                vec!["1.1.1.1", "203.0.113.9 ", "10.0.0.2"],
                "10.0.0.1",
                "203.0.113.9",
            ),
            (vec!["10.0.0.3, 10.0.0.2"], "10.0.0.1", "10.0.0.3"),
            (
                vec!["203.0.113.9, unknown, 10.0.0.2"],
                "10.0.0.1",
                "10.0.0.2",
            ),
            (vec!["203.0.113.9,"], "10.0.0.1", "10.0.0.1"),
            (vec!["203.0.113.9:4711"], "10.0.0.1", "203.0.113.9"),
            (vec!["::ffff:203.0.113.9"], "10.0.0.1", "203.0.113.9"),
            (vec!["2001:db8::1"], "fd00::1", "2001:db8::1"),
            (vec!["[2001:db8::1]:80"], "10.0.0.1", "2001:db8::1"),
        ] {
            assert_eq!(client(xff, &values, peer), wanted, "{values:?}");
        }
        for (values, wanted) in [
            (
                vec!["for=203.0.113.9;proto=https;by=10.0.0.1"],
                "203.0.113.9",
            ),
            (
                vec!["for=1.1.1.1", "proto=https; For=\"203.0.113.9:80\""],
                "203.0.113.9",
            ),
            (
                vec!["for=\"[2001:db8::1]:80\", for=10.0.0.2"],
                "2001:db8::1",
            ),
            (vec!["for=\"[2001:db8::1]\""], "2001:db8::1"),
            (vec!["for=203.0.113.9, for=_hidden"], "10.0.0.1"),
            (vec!["for=203.0.113.9, proto=https"], "10.0.0.1"),
        ] {
            assert_eq!(
                client("forwarded", &values, "10.0.0.1"),
                wanted,
                "{values:?}"
            );
        }
    }

    /// What is made of a connection that begins with these bytes, and what is left to read.
    async fn introduced(bytes: &[u8], trusted: &str) -> Result<(String, Vec<u8>), io::Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut proxy = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        proxy.write_all(bytes).await.unwrap();
        proxy.shutdown().await.unwrap();
        let (mut stream, peer) = listener.accept().await.unwrap();
        let listen = listen(&format!(
            "trusted_proxies = [\"{trusted}\"]\nproxy_protocol = [\"web\"]\n"
        ));
        let client = introduce(&mut stream, peer, &listen, Listener::Web).await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        Ok((client.to_string(), rest))
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = V2_SIGNATURE.to_vec();
        bytes.extend_from_slice(&[0x20 | command, family]);
        bytes.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(b"rest");
        bytes
    }

    #[tokio::test]
    async fn a_trusted_proxy_says_in_its_header_whom_it_speaks_for() {
        let four = [203, 0, 113, 9, 10, 0, 0, 1, 0, 80, 1, 187];
        let with_tlv = [four.as_slice(), &[4, 0, 2, 0, 0]].concat();
        let mut six = [0; 36];
        six[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        let cases: [(Vec<u8>, &str); 8] = [
            (
                b"PROXY TCP4 203.0.113.9 10.0.0.1 80 443\r\nrest".to_vec(),
                "203.0.113.9",
            ),
            (
                b"PROXY TCP6 2001:db8::1 fd00::1 80 443\r\nrest".to_vec(),
                "2001:db8::1",
            ),
            (
                b"PROXY TCP6 ::ffff:203.0.113.9 ::1 80 443\r\nrest".to_vec(),
                "203.0.113.9",
            ),
            // The proxy's own health check.
            (b"PROXY UNKNOWN\r\nrest".to_vec(), "127.0.0.1"),
            (v2(0, 0, &[]), "127.0.0.1"),
            (v2(1, 0x11, &four), "203.0.113.9"),
            (v2(1, 0x11, &with_tlv), "203.0.113.9"),
            (v2(1, 0x21, &six), "2001:db8::"),
        ];
        for (bytes, wanted) in cases {
            let (client, rest) = introduced(&bytes, "127.0.0.0/8").await.unwrap();
            assert_eq!(
                (client.as_str(), rest.as_slice()),
                (wanted, b"rest".as_slice())
            );
        }
        let refused: [&[u8]; 6] = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00",
            b"PROXY TCP4 not an address\r\n",
            b"PROXY TCP4 203.0.113.9 10.0.0.1 80 443 and so on, and so on, and so on, and so on, \
              and so on, and so on, and so on\r\n",
            b"PROX",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        ];
        for bytes in refused {
            assert!(introduced(bytes, "127.0.0.0/8").await.is_err(), "{bytes:?}");
        }
        // From anybody else it is what a client sent.
        let stranger = introduced(b"PROXY UNKNOWN\r\n", "10.0.0.0/8")
            .await
            .unwrap();
        assert_eq!(
            stranger,
            ("127.0.0.1".to_owned(), b"PROXY UNKNOWN\r\n".to_vec())
        );
    }
}
