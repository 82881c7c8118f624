//! What is not PostgreSQL's protocol, before and after sign-in.

use bytes::{BufMut, BytesMut};
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::kit::{SOON, Watch, push, until_closed};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f];
const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 0xd2, 0x16, 0x30];

/// Lengths that no startup packet has.
const LENGTHS: [i32; 8] = [0, 3, 4, 7, 10_001, i32::MAX, -1, i32::MIN];

/// Fails unless this is an ErrorResponse with this SQLSTATE.
#[track_caller]
fn refused(answer: &[u8], code: &str, after: &str) {
    let text = String::from_utf8_lossy(answer);
    let told = answer.first() == Some(&b'E') && text.contains(&format!("\0C{code}\0"));
    assert!(told, "{after}: no refusal with {code} but {text:?}");
    assert!(text.contains("SFATAL\0"), "{after}: {text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn startup_packets_of_wrong_length_are_closed_without_a_word_as_by_postgresql() {
    let watch = Watch::begin("lengths").await;
    for length in LENGTHS {
        let mut packet = length.to_be_bytes().to_vec();
        packet.extend_from_slice(&[0, 3, 0, 0]);
        let after = format!("a startup of length {length}");
        let mut plain = watch.postgres().await;
        push(&mut plain, &packet).await;
        assert!(until_closed(&mut plain, SOON).await.is_empty(), "{after}");
        let stream = watch.postgres().await;
        let mut tls = watch.tls(stream, b"postgresql").await;
        push(&mut tls, &packet).await;
        assert!(until_closed(&mut tls, SOON).await.is_empty(), "{after}");
        watch.unharmed(&after).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_other_protocols_are_refused() {
    let watch = Watch::begin("garbage").await;
    // These begin with a length that no startup packet has.
    let silently: [(&str, &[u8]); 3] = [
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("an SSH greeting", b"SSH-2.0-OpenSSH_9.0\r\n"),
        ("ones", &[0xff; 4_096]),
    ];
    for (what, bytes) in silently {
        let mut stream = watch.postgres().await;
        push(&mut stream, bytes).await;
        assert!(until_closed(&mut stream, SOON).await.is_empty(), "{what}");
        watch.unharmed(what).await;
    }
    let told: [(&str, &[u8], &str); 2] = [
        ("protocol 2", &[0, 0, 0, 8, 0, 2, 0, 0], "0A000"),
        (
            "a start in the clear",
            b"\0\0\0\x10\0\x03\0\0user\0a\0\0",
            "28000",
        ),
    ];
    for (what, bytes, code) in told {
        let mut stream = watch.postgres().await;
        push(&mut stream, bytes).await;
        refused(&until_closed(&mut stream, SOON).await, code, what);
        watch.unharmed(what).await;
    }
    let mut twice = watch.postgres().await;
    push(&mut twice, &[GSSENC_REQUEST, GSSENC_REQUEST].concat()).await;
    let answer = until_closed(&mut twice, SOON).await;
    assert_eq!(answer.first(), Some(&b'N'));
    refused(&answer[1..], "28000", "asking for GSSAPI twice");
    // What looks like TLS and is not ends as TLS does, or without a word.
    let mut broken = watch.postgres().await;
    push(
        &mut broken,
        &[&[0x16, 3, 1, 0xff, 0xff][..], &[0x41; 70_000]].concat(),
    )
    .await;
    let answer = until_closed(&mut broken, SOON).await;
    assert!(matches!(answer.first(), None | Some(0x15)), "{answer:?}");
    watch.unharmed("a broken handshake").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_slipped_in_before_the_handshake_are_refused() {
    let watch = Watch::begin("slipped").await;
    for slipped in [&b"x"[..], b"Q\0\0\0\x0dselect 1\0", &[0x16, 3, 1, 0, 200]] {
        let mut stream = watch.postgres().await;
        push(&mut stream, &[&SSL_REQUEST[..], slipped].concat()).await;
        let answer = until_closed(&mut stream, SOON).await;
        refused(&answer, "08P01", "bytes after SSLRequest");
        let text = String::from_utf8_lossy(&answer);
        assert!(
            text.contains("unencrypted data after SSL request"),
            "{text}"
        );
    }
    watch.unharmed("bytes after SSLRequest").await;
}

/// TLS asked for and begun.
async fn encrypted(watch: &Watch) -> TlsStream<TcpStream> {
    let mut stream = watch.postgres().await;
    push(&mut stream, &SSL_REQUEST).await;
    assert_eq!(stream.read_u8().await.unwrap(), b'S');
    watch.tls(stream, b"postgresql").await
}

async fn message(stream: &mut TlsStream<TcpStream>) -> (u8, Vec<u8>) {
    let read = async {
        let tag = stream.read_u8().await.unwrap();
        let length = usize::try_from(stream.read_u32().await.unwrap()).unwrap();
        let mut body = vec![0; length - 4];
        stream.read_exact(&mut body).await.unwrap();
        (tag, body)
    };
    tokio::time::timeout(SOON, read).await.expect("a message")
}

/// The packet that starts as the person of `watch`.
fn start(watch: &Watch) -> BytesMut {
    let mut packet = BytesMut::new();
    let parameters = [("user", watch.person.name.as_str()), ("database", "orders")];
    frontend::startup_message(parameters, &mut packet).unwrap();
    packet
}

/// A connection that stands after its first ReadyForQuery.
async fn signed_in(watch: &Watch) -> TlsStream<TcpStream> {
    let mut stream = encrypted(watch).await;
    push(&mut stream, &start(watch)).await;
    let binding = ChannelBinding::unsupported();
    let mut scram = ScramSha256::new(watch.person.password.as_bytes(), binding);
    loop {
        let (tag, body) = message(&mut stream).await;
        let mut out = BytesMut::new();
        match (tag, body.get(..4)) {
            (b'R', Some([0, 0, 0, 10])) => {
                frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out).unwrap();
            }
            (b'R', Some([0, 0, 0, 11])) => {
                scram.update(&body[4..]).unwrap();
                frontend::sasl_response(scram.message(), &mut out).unwrap();
            }
            (b'Z', _) => return stream,
            (b'E', _) => panic!("{}", String::from_utf8_lossy(&body)),
            _ => {}
        }
        stream.write_all(&out).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_proofs_are_refused_before_they_are_held() {
    let watch = Watch::begin("proofs").await;
    for length in [2_048, 100_000, i32::MAX, 3, 0, -1] {
        let mut stream = encrypted(&watch).await;
        push(&mut stream, &start(&watch)).await;
        assert_eq!(message(&mut stream).await.0, b'R');
        let mut proof = BytesMut::new();
        proof.put_u8(b'p');
        proof.put_i32(length);
        proof.put_bytes(b'x', 4_096);
        push(&mut stream, &proof).await;
        let answer = until_closed(&mut stream, SOON).await;
        refused(&answer, "08P01", &format!("a proof of length {length}"));
    }
    watch.unharmed("oversized proofs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_lengths_after_sign_in_end_the_connection() {
    let watch = Watch::begin("impossible").await;
    for tag in [b'Q', b'P', b'B', b'd', b'X', 0, 0xff] {
        for length in [i32::MAX, 0x4000_0000, 3, 0, -1, i32::MIN] {
            let mut stream = signed_in(&watch).await;
            let mut head = BytesMut::new();
            head.put_u8(tag);
            head.put_i32(length);
            head.put_bytes(b'x', 1_000);
            push(&mut stream, &head).await;
            let answer = until_closed(&mut stream, SOON).await;
            refused(&answer, "08P01", &format!("{tag:#04x} of length {length}"));
        }
    }
    watch.unharmed("impossible lengths").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_are_never_held_whole() {
    const MIB: usize = 1_024 * 1_024;
    let watch = Watch::begin("large").await;
    // Eight statements of 24 MiB at once, thrown away as they come.
    let statements = (0..8).map(|_| async {
        let mut stream = signed_in(&watch).await;
        let mut head = BytesMut::new();
        head.put_u8(b'Q');
        head.put_i32(i32::try_from(24 * MIB).unwrap());
        stream.write_all(&head).await.unwrap();
        let chunk = vec![b' '; MIB];
        for left in (0..24 * MIB - 4).rev().step_by(MIB) {
            let part = &chunk[..MIB.min(left + 1)];
            assert!(push(&mut stream, part).await, "it goes on being read");
        }
        let (tag, body) = message(&mut stream).await;
        let text = String::from_utf8_lossy(&body);
        assert!(tag == b'E' && text.contains("SERROR\0"), "{text:?}");
        assert_eq!(message(&mut stream).await.0, b'Z', "it can go on");
    });
    futures_util::future::join_all(statements).await;
    watch.unharmed("statements of 24 MiB").await;
    // A thousand million bytes are promised, and the client goes away in the middle.
    for tag in [b'B', b'd', b'Q', b'P'] {
        let mut stream = signed_in(&watch).await;
        let mut head = BytesMut::new();
        head.put_u8(tag);
        head.put_i32(0x3fff_fff0);
        push(&mut stream, &head).await;
        push(&mut stream, &vec![0; MIB]).await;
        drop(stream);
    }
    watch.unharmed("promises that are not kept").await;
}
