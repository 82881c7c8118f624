//! Floods that HTTP/2 makes cheap, frame by frame.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kit::{SOON, Watch, push, until_closed};
use crate::stage::API;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: u32 = 8;
/// "Do less" (RFC 9113 section 7).
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, body].concat()
}

/// GET https / of the API, in HPACK without a table of its own.
fn request() -> Vec<u8> {
    let length = u8::try_from(API.len()).unwrap();
    [&[0x82, 0x87, 0x84, 0x01, length][..], API.as_bytes()].concat()
}

/// A field that is in no table.
fn field(name: &str, value_bytes: u8) -> Vec<u8> {
    let name_bytes = u8::try_from(name.len()).unwrap();
    let value = vec![b'x'; value_bytes.into()];
    [
        &[0, name_bytes][..],
        name.as_bytes(),
        &[value_bytes],
        &value,
    ]
    .concat()
}

/// The last GOAWAY's reason in what the server sent, and the kinds of all frames.
fn goaway(mut bytes: &[u8]) -> Option<u32> {
    let mut found = None;
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some((body, rest)) = rest.split_at_checked(length) else {
            break;
        };
        if head[3] == GOAWAY {
            found = Some(u32::from_be_bytes(body[4..8].try_into().unwrap()));
        }
        bytes = rest;
    }
    found
}

/// Sends all of it on a connection of its own, and gives what comes back until it is closed.
async fn flood(watch: &Watch, frames: impl Iterator<Item = Vec<u8>> + Send) -> Vec<u8> {
    let stream = watch.tls(watch.web().await, b"h2").await;
    let (mut read, mut write) = tokio::io::split(stream);
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    push(&mut write, &begin).await;
    // Reading goes on beside writing, so that nobody waits for the other's buffers.
    let reading = tokio::spawn(async move { until_closed(&mut read, SOON).await });
    for frame in frames {
        if write.write_all(&frame).await.is_err() {
            break;
        }
    }
    let _ = write.flush().await;
    let seen = reading.await.unwrap();
    drop(write);
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_streams_reset_at_once_are_too_many() {
    let watch = Watch::begin("resets").await;
    let streams = (0..2_000).map(|n| {
        let stream = 2 * n + 1;
        let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &request());
        [open, frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())].concat()
    });
    let seen = flood(&watch, std::iter::once(streams.flatten().collect())).await;
    assert_eq!(goaway(&seen), Some(ENHANCE_YOUR_CALM));
    watch.unharmed("2,000 streams reset").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_never_end_are_cut_off() {
    let watch = Watch::begin("continued").await;
    let begin = frame(HEADERS, END_STREAM, 1, &request());
    let more = field("flood", 100).repeat(100);
    let endless = (0..2_000).map(|_| frame(CONTINUATION, 0, 1, &more));
    let seen = flood(&watch, std::iter::once(begin).chain(endless)).await;
    assert!(goaway(&seen).is_some(), "no GOAWAY");
    watch.unharmed("endless CONTINUATION").await;
    // Empty frames cost a server time and the client nothing.
    let begin = frame(HEADERS, END_STREAM, 1, &request());
    let empty = (0..20_000).map(|_| frame(CONTINUATION, 0, 1, &[]));
    let seen = flood(&watch, std::iter::once(begin).chain(empty)).await;
    assert!(goaway(&seen).is_some(), "no GOAWAY");
    watch.unharmed("endless empty CONTINUATION").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_a_header_section_is_refused_on_its_stream() {
    let watch = Watch::begin("sections").await;
    let stream = watch.tls(watch.web().await, b"h2").await;
    let (mut read, mut write) = tokio::io::split(stream);
    let mut block = request();
    block.extend(field("flood", 120).repeat(300));
    let mut sent = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let mut parts = block.chunks(16_000);
    sent.extend(frame(HEADERS, END_STREAM, 1, parts.next().unwrap()));
    let rest: Vec<_> = parts.collect();
    for (at, part) in rest.iter().enumerate() {
        let flags = if at + 1 == rest.len() { END_HEADERS } else { 0 };
        sent.extend(frame(CONTINUATION, flags, 1, part));
    }
    assert!(push(&mut write, &sent).await);
    let answered = async {
        loop {
            let mut head = [0; 9];
            read.read_exact(&mut head).await.unwrap();
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            let mut body = vec![0; length];
            read.read_exact(&mut body).await.unwrap();
            if head[8] == 1 {
                return (head[3], body);
            }
        }
    };
    let answered = tokio::time::timeout(SOON, answered).await;
    let (kind, body) = answered.expect("an answer on the stream");
    // `:status: 431` as HPACK writes it with Huffman's code.
    let too_large = [0x48, 0x83, 0x69, 0x90, 0xff];
    assert_eq!(kind, HEADERS);
    assert!(body.starts_with(&too_large), "{body:x?}");
    watch.unharmed("a header section of 40 KiB").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_cannot_be_are_answered_with_goaway() {
    let watch = Watch::begin("frames").await;
    let cases = [
        (
            "a frame beyond the limit",
            frame(HEADERS, END_HEADERS, 1, &vec![0; 20_000]),
        ),
        ("a short ping", frame(PING, 0, 0, &[0; 3])),
        ("settings on a stream", frame(SETTINGS, 0, 1, &[])),
        ("an even stream", frame(HEADERS, END_HEADERS, 2, &request())),
        (
            "a block that is no HPACK",
            frame(HEADERS, END_HEADERS, 1, &[0xff; 64]),
        ),
        (
            "a continuation of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &request()),
        ),
    ];
    for (what, bytes) in cases {
        let seen = flood(&watch, std::iter::once(bytes)).await;
        assert!(goaway(&seen).is_some_and(|reason| reason > 0), "{what}");
    }
    watch.unharmed("impossible frames").await;
}
