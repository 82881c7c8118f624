//! Where WebSocket frames begin and end (RFC 6455 section 5.2), however the bytes are chunked.
//!
//! Nothing is joined or changed: payloads and extensions pass untouched. Headers are read to know
//! where a frame of one's own may stand, and with [`Messages`] to tell what a person sent from
//! pings, from nothing, and from an application's own heartbeat.

use super::activity::{MESSAGE_BYTES_MAX, MOVED_BYTES};
use crate::config::Patterns;

/// The longest frame header: 2 bytes, 8 of length, 4 of mask.
const HEADER_BYTES_MAX: usize = 14;

/// The longest reason a Close frame can carry: 125 bytes of control payload less 2 of code.
pub(super) const REASON_BYTES_MAX: usize = 123;

/// Bytes that no frame can be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct NotFrames;

/// The header of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    opcode: u8,
    /// The last frame of its message.
    fin: bool,
    /// The three bits of extensions; the first one says that a message is compressed (RFC 7692).
    reserved: u8,
    mask: Option<[u8; 4]>,
}

impl Header {
    fn is_data(self) -> bool {
        self.opcode < 3
    }

    pub(super) fn is_close(self) -> bool {
        self.opcode == 8
    }
}

/// What a chunk of bytes is made of, in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Part<'a> {
    /// A frame begins.
    Header(Header),
    /// Some of its payload, as it was sent.
    Payload(&'a [u8]),
    /// The frame is whole.
    End,
}

/// Follows one direction of a WebSocket.
#[derive(Clone, Debug, Default)]
pub(super) struct Splitter {
    header: [u8; HEADER_BYTES_MAX],
    have: usize,
    /// Payload still to come of the frame whose header is complete.
    left: u64,
}

impl Splitter {
    /// Takes in the next bytes, and tells what they are.
    pub(super) fn feed<'a>(
        &mut self,
        mut bytes: &'a [u8],
        mut tell: impl FnMut(Part<'a>),
    ) -> Result<(), NotFrames> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let most = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                let (payload, rest) = bytes.split_at(most);
                self.left -= u64::try_from(most).unwrap_or(self.left);
                tell(Part::Payload(payload));
                if self.left == 0 {
                    tell(Part::End);
                }
                bytes = rest;
                continue;
            }
            let Some((first, rest)) = bytes.split_first() else {
                break;
            };
            let Some(place) = self.header.get_mut(self.have) else {
                return Err(NotFrames);
            };
            *place = *first;
            self.have += 1;
            bytes = rest;
            if self.have >= self.header_len() {
                tell(Part::Header(self.finish_header()?));
                if self.left == 0 {
                    tell(Part::End);
                }
            }
        }
        Ok(())
    }

    /// How long the header is, as far as it can be told.
    fn header_len(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let [_, second, ..] = self.header;
        let length = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    fn finish_header(&mut self) -> Result<Header, NotFrames> {
        let [first, second, a, b, c, d, e, f, g, h, ..] = self.header;
        self.left = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes([a, b])),
            127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            short => u64::from(short),
        };
        // The highest bit of a 64-bit length must be zero.
        if self.left > u64::MAX / 2 {
            return Err(NotFrames);
        }
        let mask = self.have.checked_sub(4).filter(|_| second & 0x80 != 0);
        let mask = mask.and_then(|at| self.header.get(at..at + 4)?.try_into().ok());
        self.have = 0;
        Ok(Header {
            opcode: first & 0x0f,
            fin: first & 0x80 != 0,
            reserved: first & 0x70,
            mask,
        })
    }

    /// Bytes until the current frame is complete: zero between frames, and none while even its
    /// header is not.
    pub(super) fn until_boundary(&self) -> Option<u64> {
        (self.have == 0).then_some(self.left)
    }
}

/// The messages in one direction of a WebSocket: which of them are a person's doing.
#[derive(Debug)]
pub(super) struct Messages {
    heartbeats: Patterns,
    frame: Option<Header>,
    /// The message's first frame said that it is compressed.
    compressed: bool,
    /// Payload of the message so far.
    bytes: u64,
    /// Payload since the last activity.
    moved: usize,
    /// Payload of the frame so far.
    unmasked: usize,
    /// What it says, as long as it may be a heartbeat.
    text: Vec<u8>,
}

impl Messages {
    pub(super) fn new(heartbeats: Patterns) -> Self {
        Self {
            heartbeats,
            frame: None,
            compressed: false,
            bytes: 0,
            moved: 0,
            unmasked: 0,
            text: Vec::new(),
        }
    }

    /// Takes in a part. Whether it is activity: the end of a whole message that says something,
    /// or one more piece of a long one.
    pub(super) fn is_activity(&mut self, part: Part<'_>) -> bool {
        match part {
            Part::Header(header) => {
                self.frame = Some(header);
                self.unmasked = 0;
                if header.opcode == 1 || header.opcode == 2 {
                    self.compressed = header.reserved & 0x40 != 0;
                    self.bytes = 0;
                    self.text.clear();
                }
                false
            }
            Part::Payload(payload) => {
                let Some(header) = self.frame.filter(|header| header.is_data()) else {
                    return false;
                };
                self.take(payload, header.mask)
            }
            Part::End => {
                let header = self.frame.take();
                header.is_some_and(|header| header.is_data() && header.fin) && self.says_something()
            }
        }
    }

    fn take(&mut self, payload: &[u8], mask: Option<[u8; 4]>) -> bool {
        let before = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        self.bytes = self.bytes.saturating_add(payload.len() as u64);
        if self.heartbeats.is_any() && before <= MESSAGE_BYTES_MAX {
            let room = (MESSAGE_BYTES_MAX + 1).saturating_sub(self.text.len());
            let key = mask.unwrap_or_default();
            let key = key.iter().cycle().skip(self.unmasked % 4);
            let plain = payload.iter().zip(key).take(room);
            self.text.extend(plain.map(|(byte, key)| byte ^ key));
        }
        self.unmasked = self.unmasked.wrapping_add(payload.len());
        self.moved = self.moved.saturating_add(payload.len());
        if self.moved < MOVED_BYTES || self.bytes <= MESSAGE_BYTES_MAX as u64 {
            return false;
        }
        self.moved %= MOVED_BYTES;
        true
    }

    /// Whether the message that has just ended is one that somebody wrote.
    fn says_something(&mut self) -> bool {
        self.moved = 0;
        // RFC 7692 section 7.2.3.6: compressed, nothing is one byte.
        if self.bytes <= u64::from(self.compressed) {
            return false;
        }
        if !self.heartbeats.is_any() || self.bytes > MESSAGE_BYTES_MAX as u64 {
            return true;
        }
        // Extensions were not agreed on, so that messages can be read: this one cannot.
        !self.compressed && !self.heartbeats.match_text(&self.text)
    }
}

/// A Close frame. A client's must be masked, a server's must not.
pub(super) fn close_frame(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let end = (0..=REASON_BYTES_MAX)
        .rev()
        .find(|at| reason.is_char_boundary(*at));
    let reason = end.and_then(|end| reason.get(..end)).unwrap_or(reason);
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    // At most 125 bytes, so the length has one byte.
    let length = u8::try_from(payload.len()).unwrap_or_default();
    let mut frame = vec![0x88];
    match mask {
        None => frame.push(length),
        Some(mask) => {
            frame.push(length | 0x80);
            frame.extend_from_slice(&mask);
            for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
                *byte ^= key;
            }
        }
    }
    frame.extend_from_slice(&payload);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a splitter told.
    #[derive(Debug, Default)]
    struct Seen {
        opcodes: Vec<u8>,
        bytes: usize,
        ends: usize,
    }

    impl Seen {
        fn feed(&mut self, splitter: &mut Splitter, bytes: &[u8]) -> Result<(), NotFrames> {
            splitter.feed(bytes, |part| match part {
                Part::Header(header) => self.opcodes.push(header.opcode),
                Part::Payload(payload) => self.bytes += payload.len(),
                Part::End => self.ends += 1,
            })
        }
    }

    fn frame(opcode: u8, payload: usize, masked: bool) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        let mask = if masked { 0x80 } else { 0 };
        match payload {
            0..=125 => frame.push(mask | u8::try_from(payload).unwrap()),
            126..=65_535 => {
                frame.push(mask | 126);
                frame.extend_from_slice(&u16::try_from(payload).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend_from_slice(&u64::try_from(payload).unwrap().to_be_bytes());
            }
        }
        if masked {
            frame.extend_from_slice(&[1, 2, 3, 4]);
        }
        frame.resize(frame.len() + payload, 0x88);
        frame
    }

    proptest! {
        #[test]
        fn frames_are_found_however_they_are_chunked(
            frames in proptest::collection::vec(
                (prop_oneof![Just(0_u8), Just(1), Just(2), Just(8), Just(9), Just(10)],
                 prop_oneof![0_usize..130, 65_530_usize..65_540], any::<bool>()),
                1..6,
            ),
            cuts in proptest::collection::vec(1_usize..70_000, 1..40),
        ) {
            let bytes: Vec<u8> =
                frames.iter().flat_map(|(op, len, masked)| frame(*op, *len, *masked)).collect();
            let mut ends = Vec::new();
            let mut at = 0;
            for (op, len, masked) in &frames {
                at += frame(*op, *len, *masked).len();
                ends.push(at);
            }
            let mut splitter = Splitter::default();
            let (mut rest, mut seen, mut fed) = (bytes.as_slice(), Seen::default(), 0);
            for cut in cuts.iter().cycle() {
                let (chunk, after) = rest.split_at((*cut).min(rest.len()));
                seen.feed(&mut splitter, chunk).unwrap();
                fed += chunk.len();
                let at_boundary = splitter.until_boundary() == Some(0);
                prop_assert_eq!(at_boundary, fed == 0 || ends.contains(&fed));
                if let Some(left) = splitter.until_boundary() {
                    let end = fed + usize::try_from(left).unwrap();
                    prop_assert!(end == 0 || ends.contains(&end));
                }
                rest = after;
                if rest.is_empty() { break }
            }
            let opcodes: Vec<u8> = frames.iter().map(|(op, ..)| *op).collect();
            prop_assert_eq!(seen.opcodes, opcodes);
            prop_assert_eq!(seen.ends, frames.len());
            prop_assert_eq!(seen.bytes, frames.iter().map(|(_, len, _)| len).sum::<usize>());
        }

        #[test]
        fn no_bytes_make_it_stumble(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut splitter = Splitter::default();
            let mut messages = Messages::new(vec!["^2$".to_owned()].try_into().unwrap());
            let _ = splitter.feed(&bytes, |part| {
                messages.is_activity(part);
            });
        }
    }

    /// How many activities these frames of a client are.
    fn activities(patterns: &[&str], frames: &[(u8, &[u8])]) -> usize {
        let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
        let mut messages = Messages::new(patterns.try_into().unwrap());
        let (mut splitter, mut count) = (Splitter::default(), 0);
        for (first, payload) in frames {
            let mut frame = vec![*first];
            match payload.len() {
                short @ 0..=125 => frame.push(0x80 | u8::try_from(short).unwrap()),
                long => {
                    frame.push(0x80 | 127);
                    frame.extend_from_slice(&(long as u64).to_be_bytes());
                }
            }
            let mask = [7, 0, 255, 9];
            frame.extend_from_slice(&mask);
            let masked = payload.iter().zip(mask.iter().cycle());
            frame.extend(masked.map(|(byte, key)| byte ^ key));
            // However the bytes are chunked.
            for chunk in frame.chunks(5) {
                splitter
                    .feed(chunk, |part| {
                        count += usize::from(messages.is_activity(part))
                    })
                    .unwrap();
            }
        }
        count
    }

    #[test]
    fn only_whole_messages_that_say_something_are_activity() {
        const TEXT: u8 = 0x81;
        const BEGIN: u8 = 0x01;
        const MORE: u8 = 0x00;
        const LAST: u8 = 0x80;
        const COMPRESSED: u8 = 0xc1;
        assert_eq!(activities(&[], &[(TEXT, b"hi"), (0x82, b"ho")]), 2);
        let nothing: [(u8, &[u8]); 9] = [
            (TEXT, b""),
            (0x89, b"ping"),
            (0x8a, b"pong"),
            (BEGIN, b""),
            (MORE, b""),
            (MORE, b"x"),
            (MORE, b""),
            (0x89, b""),
            (COMPRESSED, b"\0"),
        ];
        assert_eq!(activities(&[], &nothing), 0);
        let fragments: [(u8, &[u8]); 4] = [(BEGIN, b"a"), (0x89, b""), (MORE, b""), (LAST, b"")];
        assert_eq!(activities(&[], &fragments), 1);
        assert_eq!(activities(&[], &[(COMPRESSED, b"\x2a\x00")]), 1);
        // A long message is, as far as it has come.
        let long = vec![b'x'; 5 * MOVED_BYTES];
        assert_eq!(activities(&[], &[(BEGIN, &long)]), 5);
        assert_eq!(activities(&[], &[(TEXT, &long)]), 6);
    }

    #[test]
    fn an_applications_heartbeat_is_none() {
        let beats = ["^[23]$", r#""phoenix","heartbeat""#];
        let beat = br#"[null,"17","phoenix","heartbeat",{}]"#;
        let frames: [(u8, &[u8]); 4] = [(0x81, b"2"), (0x81, beat), (0x01, b""), (0x80, b"3")];
        assert_eq!(activities(&beats, &frames), 0);
        assert_eq!(activities(&beats, &[(0x81, b"42"), (0x81, b"2")]), 1);
        // Somebody's text that has one in it, far too long to be one.
        let long = [beat.as_slice(), &[b'x'; 2_000]].concat();
        assert_eq!(activities(&beats, &[(0x81, &long)]), 1);
        // What cannot be read may be one.
        assert_eq!(activities(&beats, &[(0xc1, b"\x2a\x00")]), 0);
    }

    #[test]
    fn a_length_beyond_63_bits_is_refused() {
        let huge = [0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0];
        let fed = Splitter::default().feed(&huge, |_| {});
        assert_eq!(fed, Err(NotFrames));
    }

    #[test]
    fn a_close_frame_fits_whatever_the_reason() {
        for reason in ["", "idle", &"ä".repeat(100)] {
            for mask in [None, Some([9, 8, 7, 6])] {
                let frame = close_frame(3008, reason, mask);
                let mut splitter = Splitter::default();
                let mut seen = Seen::default();
                seen.feed(&mut splitter, &frame).unwrap();
                assert_eq!(seen.opcodes, [8]);
                assert_eq!(splitter.until_boundary(), Some(0));
                assert!(frame.len() <= 2 + 4 + 125);
            }
        }
        assert_eq!(close_frame(1000, "x", None), [0x88, 3, 0x03, 0xe8, b'x']);
    }
}
