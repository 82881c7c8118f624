//! WebSocket frames that cannot be.

use std::fmt::Write;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::kit::{SOON, Watch, push, until_closed};
use crate::stage::API;

/// The protocol was broken (RFC 6455 section 7.4.1).
const PROTOCOL_ERROR: u16 = 1002;

async fn open(watch: &Watch) -> TlsStream<TcpStream> {
    let mut stream = watch.http1().await;
    let mut request = format!("GET /ws HTTP/1.1\r\nHost: {API}\r\n");
    write!(request, "Authorization: Bearer {}\r\n", watch.person.bearer).unwrap();
    request += "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    push(&mut stream, request.as_bytes()).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let text = String::from_utf8_lossy(&head);
    assert!(text.starts_with("HTTP/1.1 101"), "{text}");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_cannot_be_close_the_socket() {
    let watch = Watch::begin("frames-ws").await;
    let mask = [0; 4];
    let cases: [(&str, Vec<u8>); 7] = [
        (
            "a length with its highest bit set",
            [&[0x82, 0xff][..], &[0xff; 8], &mask].concat(),
        ),
        (
            "a reserved opcode",
            [&[0x83, 0x81][..], &mask, b"x"].concat(),
        ),
        (
            "a reserved control opcode",
            [&[0x8b, 0x80][..], &mask].concat(),
        ),
        (
            "a long ping",
            [&[0x89, 0xfe, 0x01, 0x00][..], &mask, &[0; 256]].concat(),
        ),
        ("a ping in parts", [&[0x09, 0x80][..], &mask].concat()),
        ("no mask", vec![0x81, 0x01, b'x']),
        (
            "a continuation of nothing",
            [&[0x80, 0x81][..], &mask, b"x"].concat(),
        ),
    ];
    for (what, bytes) in cases {
        let mut stream = open(&watch).await;
        push(&mut stream, &bytes).await;
        let answer = until_closed(&mut stream, SOON).await;
        // The reason is the gateway's where it reads it, and otherwise the app's.
        if let Some([0x88, _, code @ ..]) = answer.get(..4) {
            assert_eq!(
                u16::from_be_bytes(code.try_into().unwrap()),
                PROTOCOL_ERROR,
                "{what}"
            );
        } else {
            eprintln!("{what}: closed with {answer:?}");
            assert!(answer.is_empty(), "{what}: {answer:?}");
        }
        watch.unharmed(what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_all_numbers_is_never_held() {
    let watch = Watch::begin("huge-ws").await;
    let length = (u64::MAX / 2).to_be_bytes();
    let sockets = (0..8).map(|_| async {
        let mut stream = open(&watch).await;
        push(&mut stream, &[&[0x82, 0xff][..], &length, &[0; 4]].concat()).await;
        for _ in 0..8 {
            if !push(&mut stream, &vec![0; 1_024 * 1_024]).await {
                break;
            }
        }
        stream
    });
    let held = futures_util::future::join_all(sockets).await;
    watch.unharmed("frames of 2^63 bytes").await;
    drop(held);
}
