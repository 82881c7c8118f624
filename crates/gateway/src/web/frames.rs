//! Where WebSocket frames begin and end (RFC 6455 section 5.2), however the bytes are chunked.
//!
//! Nothing is unmasked, joined or changed: payloads and extensions pass untouched. Only headers
//! are read, to tell what a person sent from pings, and to know where a frame of one's own may
//! stand.

/// The longest frame header: 2 bytes, 8 of length, 4 of mask.
const HEADER_BYTES_MAX: usize = 14;

/// The longest reason a Close frame can carry: 125 bytes of control payload less 2 of code.
pub(super) const REASON_BYTES_MAX: usize = 123;

/// Bytes that no frame can be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct NotFrames;

/// What a chunk of bytes held.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Seen {
    /// Some of it belonged to a data frame (opcodes 0, 1 and 2).
    pub(super) data: bool,
    /// A Close frame began in it.
    pub(super) close: bool,
}

/// Follows one direction of a WebSocket.
#[derive(Clone, Debug, Default)]
pub(super) struct Splitter {
    header: [u8; HEADER_BYTES_MAX],
    have: usize,
    /// Payload still to come of the frame whose header is complete.
    left: u64,
    is_data: bool,
}

impl Splitter {
    /// Takes in the next bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<Seen, NotFrames> {
        let mut seen = Seen::default();
        while !bytes.is_empty() {
            if self.left > 0 {
                let most = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                let (_, rest) = bytes.split_at(most);
                self.left -= u64::try_from(most).unwrap_or(self.left);
                seen.data |= self.is_data;
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
                self.finish_header(&mut seen)?;
            }
        }
        Ok(seen)
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

    fn finish_header(&mut self, seen: &mut Seen) -> Result<(), NotFrames> {
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
        let opcode = first & 0x0f;
        self.is_data = opcode < 3;
        seen.data |= self.is_data;
        seen.close |= opcode == 8;
        self.have = 0;
        Ok(())
    }

    /// Bytes until the current frame is complete: zero between frames, and none while even its
    /// header is not.
    pub(super) fn until_boundary(&self) -> Option<u64> {
        (self.have == 0).then_some(self.left)
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
                let now = splitter.feed(chunk).unwrap();
                seen.data |= now.data;
                seen.close |= now.close;
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
            prop_assert_eq!(seen.data, frames.iter().any(|(op, ..)| *op < 3));
            prop_assert_eq!(seen.close, frames.iter().any(|(op, ..)| *op == 8));
        }

        #[test]
        fn no_bytes_make_it_stumble(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut splitter = Splitter::default();
            let _ = splitter.feed(&bytes);
        }
    }

    #[test]
    fn pings_are_not_data_and_a_length_beyond_63_bits_is_refused() {
        let mut splitter = Splitter::default();
        assert_eq!(splitter.feed(&frame(9, 5, true)), Ok(Seen::default()));
        assert_eq!(
            splitter.feed(&frame(1, 0, true)),
            Ok(Seen {
                data: true,
                close: false
            })
        );
        let huge = [0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(splitter.feed(&huge), Err(NotFrames));
    }

    #[test]
    fn a_close_frame_fits_whatever_the_reason() {
        for reason in ["", "idle", &"ä".repeat(100)] {
            for mask in [None, Some([9, 8, 7, 6])] {
                let frame = close_frame(3008, reason, mask);
                let mut splitter = Splitter::default();
                assert_eq!(
                    splitter.feed(&frame),
                    Ok(Seen {
                        data: false,
                        close: true
                    })
                );
                assert_eq!(splitter.until_boundary(), Some(0));
                assert!(frame.len() <= 2 + 4 + 125);
            }
        }
        assert_eq!(close_frame(1000, "x", None), [0x88, 3, 0x03, 0xe8, b'x']);
    }
}
