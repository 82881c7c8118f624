//! The framing of PostgreSQL messages: a type byte, a length, a body. A dozen types are read; all
//! others pass through without ever being in memory whole.

use bytes::{Buf, BufMut, BytesMut};

/// The largest message whose body is read: a statement's text. PostgreSQL's own limit is 1 GiB; a
/// megabyte of SQL takes the parser about a second.
pub(crate) const INSPECTED_BYTES_MAX: usize = 1_024 * 1_024;

/// The most of a `Bind` that is looked at: two names of up to 63 bytes that count, and room for
/// clients that make longer ones.
pub(crate) const NAMES_BYTES_MAX: usize = 1_024;

/// The largest message there is (PostgreSQL's `PQ_LARGE_MESSAGE_LIMIT`, 1 GiB).
const FRAME_BYTES_MAX: usize = 0x3fff_ffff;

/// Bytes of type and length.
pub(crate) const HEAD_BYTES: usize = 5;

/// What came is not PostgreSQL's protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum FrameError {
    /// The length is shorter than itself, or over 1 GiB.
    #[error("a message of type {0:#04x} with the impossible length {1}")]
    Length(u8, i32),
}

/// Type and size of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Head {
    /// The type byte.
    pub(crate) tag: u8,
    /// All of its bytes, type and length among them.
    pub(crate) total: usize,
}

/// What becomes of the message that begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// It flows on as it comes.
    Pass,
    /// It is thrown away as it comes.
    Drop,
}

/// One direction of a connection, cut into messages.
///
/// Knows at every moment whether it stands between two messages, so that nothing of ours is ever
/// written into the middle of one.
#[derive(Debug)]
pub(crate) struct FrameSplitter {
    buffer: BytesMut,
    /// What is under way, and how many bytes of it have not come through yet.
    flowing: Option<(Way, usize)>,
}

impl FrameSplitter {
    /// With what has been read already.
    pub(crate) fn new(buffer: BytesMut) -> Self {
        Self {
            buffer,
            flowing: None,
        }
    }

    /// Where to read into.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// How many bytes wait here.
    pub(crate) fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// Whether a message is half through.
    pub(crate) fn is_inside(&self) -> bool {
        matches!(self.flowing, Some((Way::Pass, _)))
    }

    /// The message that comes next, once its head is here and the one before is through.
    pub(crate) fn head(&self) -> Result<Option<Head>, FrameError> {
        if self.flowing.is_some() {
            return Ok(None);
        }
        let Some((&[tag, a, b, c, d], _)) = self.buffer.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes([a, b, c, d]);
        match usize::try_from(length) {
            Ok(bytes) if (4..=FRAME_BYTES_MAX).contains(&bytes) => Ok(Some(Head {
                tag,
                total: bytes + 1,
            })),
            _ => Err(FrameError::Length(tag, length)),
        }
    }

    /// Lets the message with this head pass or fall as its bytes come.
    pub(crate) fn begin(&mut self, head: Head, way: Way) {
        self.flowing = Some((way, head.total));
    }

    /// Moves what is here of the message under way. True once it is through, or where none is.
    pub(crate) fn flow(&mut self, out: &mut BytesMut) -> bool {
        let Some((way, left)) = self.flowing else {
            return true;
        };
        let bytes = left.min(self.buffer.len());
        if way == Way::Pass {
            out.extend_from_slice(self.buffer.get(..bytes).unwrap_or_default());
        }
        self.buffer.advance(bytes);
        self.flowing = (bytes < left).then_some((way, left - bytes));
        self.flowing.is_none()
    }

    /// The whole message with this head, once it is here.
    pub(crate) fn whole(&mut self, head: Head) -> Option<BytesMut> {
        if self.buffer.len() < head.total {
            // Room for all of it at once, not by doubling.
            self.buffer.reserve(head.total - self.buffer.len());
            return None;
        }
        Some(self.buffer.split_to(head.total))
    }

    /// Whether what waits here is nothing but whole messages, the last one of this type.
    pub(crate) fn ends_with(&self, tag: u8) -> bool {
        let mut at = self.flowing.map_or(0, |(_, left)| left);
        let mut last = None;
        while let Some(&[kind, a, b, c, d]) = self
            .buffer
            .get(at..)
            .and_then(|rest| rest.first_chunk::<HEAD_BYTES>())
        {
            let Ok(bytes) = usize::try_from(i32::from_be_bytes([a, b, c, d])) else {
                return false;
            };
            at = at.saturating_add(bytes).saturating_add(1);
            last = Some(kind);
        }
        at == self.buffer.len() && last == Some(tag)
    }

    /// The first bytes of the body of the message with this head, as far as they are here.
    pub(crate) fn peek(&self, head: Head) -> &[u8] {
        let end = head
            .total
            .min(self.buffer.len())
            .min(HEAD_BYTES + NAMES_BYTES_MAX);
        self.buffer.get(HEAD_BYTES..end).unwrap_or_default()
    }
}

/// Takes a zero-terminated text off the front.
pub(crate) fn take_text<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let text = body.get(..end)?;
    *body = body.get(end + 1..)?;
    Some(text)
}

/// Writes a message with this type; its length is filled in afterwards.
pub(crate) fn message(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let at = out.len();
    out.put_i32(0);
    body(out);
    let length = i32::try_from(out.len() - at).unwrap_or(i32::MAX);
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    // A zero byte would end the text early and shift everything after it.
    out.extend(text.bytes().filter(|byte| *byte != 0));
    out.put_u8(0);
}

/// How bad an error is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Severity {
    /// The statement failed; the connection goes on.
    Error,
    /// The connection is over.
    Fatal,
}

/// What a client is told when something is refused or ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Complaint {
    /// How bad.
    pub(crate) severity: Severity,
    /// The SQLSTATE.
    pub(crate) code: &'static str,
    /// What happened.
    pub(crate) message: String,
    /// The circumstances.
    pub(crate) detail: Option<String>,
    /// How to go on.
    pub(crate) hint: Option<String>,
}

impl Complaint {
    /// That ends the connection.
    pub(crate) fn fatal(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Fatal,
            code,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    /// That ends the statement.
    pub(crate) fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            ..Self::fatal(code, message)
        }
    }

    /// With the circumstances.
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With how to go on.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// As an ErrorResponse.
    pub(crate) fn write(&self, out: &mut BytesMut) {
        let severity = match self.severity {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        };
        let optional = [(b'D', self.detail.as_deref()), (b'H', self.hint.as_deref())];
        let fixed = [
            (b'S', Some(severity)),
            (b'V', Some(severity)),
            (b'C', Some(self.code)),
            (b'M', Some(self.message.as_str())),
        ];
        message(out, b'E', |out| {
            for (field, text) in fixed.into_iter().chain(optional) {
                if let Some(text) = text {
                    out.put_u8(field);
                    put_text(out, text);
                }
            }
            out.put_u8(0);
        });
    }
}

/// The state that a ReadyForQuery tells: `I`, `T` or `E`.
pub(crate) fn ready_for_query(out: &mut BytesMut, status: u8) {
    message(out, b'Z', |out| out.put_u8(status));
}

/// A setting of the server that clients want to know.
pub(crate) fn parameter_status(out: &mut BytesMut, name: &str, value: &str) {
    message(out, b'S', |out| {
        put_text(out, name);
        put_text(out, value);
    });
}

/// What the client needs to cancel.
pub(crate) fn backend_key_data(out: &mut BytesMut, process: i32, key: &[u8]) {
    message(out, b'K', |out| {
        out.put_i32(process);
        out.extend_from_slice(key);
    });
}

/// The newest minor version spoken here, and the options that are not known here.
pub(crate) fn negotiate_protocol_version(out: &mut BytesMut, newest: i32, options: &[String]) {
    message(out, b'v', |out| {
        out.put_i32(newest);
        out.put_i32(i32::try_from(options.len()).unwrap_or(i32::MAX));
        for option in options {
            put_text(out, option);
        }
    });
}

/// AuthenticationSASL: the one mechanism on offer.
pub(crate) fn authentication_sasl(out: &mut BytesMut, mechanism: &str) {
    message(out, b'R', |out| {
        out.put_i32(10);
        put_text(out, mechanism);
        out.put_u8(0);
    });
}

/// AuthenticationSASLContinue.
pub(crate) fn authentication_sasl_continue(out: &mut BytesMut, data: &str) {
    message(out, b'R', |out| {
        out.put_i32(11);
        out.extend_from_slice(data.as_bytes());
    });
}

/// AuthenticationSASLFinal, and AuthenticationOk right after.
pub(crate) fn authentication_sasl_final(out: &mut BytesMut, data: &str) {
    message(out, b'R', |out| {
        out.put_i32(12);
        out.extend_from_slice(data.as_bytes());
    });
    message(out, b'R', |out| out.put_i32(0));
}

/// Terminate.
pub(crate) fn terminate(out: &mut BytesMut) {
    message(out, b'X', |_| {});
}

/// Sync.
pub(crate) fn sync(out: &mut BytesMut) {
    message(out, b'S', |_| {});
}

/// Flush.
pub(crate) fn flush(out: &mut BytesMut) {
    message(out, b'H', |_| {});
}

/// CopyFail, with what the server's log says of it.
pub(crate) fn copy_fail(out: &mut BytesMut, why: &str) {
    message(out, b'f', |out| put_text(out, why));
}

/// Execute of all rows of a portal.
pub(crate) fn execute(out: &mut BytesMut, portal: &str) {
    message(out, b'E', |out| {
        put_text(out, portal);
        out.put_i32(0);
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs bytes through in these portions: `Q` is read whole, `x` is dropped, all else passes.
    fn run(input: &[u8], portions: &[usize]) -> (Vec<u8>, Vec<Vec<u8>>, usize) {
        let mut splitter = FrameSplitter::new(BytesMut::new());
        let (mut out, mut whole, mut most) = (BytesMut::new(), Vec::new(), 0);
        let mut portions = portions.iter().copied().chain(std::iter::repeat(7));
        let mut rest = input;
        'all: while !rest.is_empty() {
            let (now, later) = rest.split_at(portions.next().unwrap_or(1).clamp(1, rest.len()));
            rest = later;
            splitter.buffer().extend_from_slice(now);
            while splitter.flow(&mut out) {
                let Ok(head) = splitter.head() else {
                    break 'all;
                };
                match head {
                    None => break,
                    Some(head) if head.tag == b'Q' && head.total <= 100 => {
                        match splitter.whole(head) {
                            Some(frame) => whole.push(frame.to_vec()),
                            None => break,
                        }
                    }
                    Some(head) if head.tag == b'x' => splitter.begin(head, Way::Drop),
                    Some(head) => splitter.begin(head, Way::Pass),
                }
            }
            most = most.max(splitter.waiting());
        }
        (out.to_vec(), whole, most)
    }

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        message(&mut out, tag, |out| out.extend_from_slice(body));
        out.to_vec()
    }

    proptest! {
        #[test]
        fn boundaries_stay_where_they_are(
            frames in prop::collection::vec((prop::sample::select(&b"QDxdZ"[..]), prop::collection::vec(any::<u8>(), 0..90)), 0..20),
            portions in prop::collection::vec(1_usize..40, 0..60),
        ) {
            let input: Vec<u8> = frames.iter().flat_map(|(tag, body)| frame(*tag, body)).collect();
            let (out, whole, _) = run(&input, &portions);
            let passed: Vec<u8> = frames.iter().filter(|(tag, _)| !b"Qx".contains(tag)).flat_map(|(tag, body)| frame(*tag, body)).collect();
            let read: Vec<Vec<u8>> = frames.iter().filter(|(tag, _)| *tag == b'Q').map(|(tag, body)| frame(*tag, body)).collect();
            prop_assert_eq!(out, passed);
            prop_assert_eq!(whole, read);
        }

        #[test]
        fn random_bytes_neither_panic_nor_pile_up(
            input in prop::collection::vec(any::<u8>(), 0..4_000),
            portions in prop::collection::vec(1_usize..200, 0..60),
        ) {
            let (_, _, most) = run(&input, &portions);
            // One inspected message and one portion.
            prop_assert!(most <= 100 + 200, "{most} bytes waited");
        }
    }

    #[test]
    fn a_large_message_passes_without_being_held() {
        let mut splitter = FrameSplitter::new(BytesMut::new());
        splitter
            .buffer()
            .extend_from_slice(&[b'D', 0x3f, 0xff, 0xff, 0xff, 1, 2, 3]);
        let head = splitter.head().unwrap().unwrap();
        splitter.begin(head, Way::Pass);
        let mut out = BytesMut::new();
        assert!(!splitter.flow(&mut out));
        assert!(splitter.is_inside());
        assert_eq!((out.len(), splitter.waiting()), (8, 0));
        assert_eq!(splitter.head(), Ok(None));
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for length in [
            [0, 0, 0, 3],
            [0, 0, 0, 0],
            [0xff, 0xff, 0xff, 0xff],
            [0x40, 0, 0, 0],
        ] {
            let mut splitter = FrameSplitter::new(BytesMut::new());
            splitter.buffer().put_u8(b'Q');
            splitter.buffer().extend_from_slice(&length);
            assert!(splitter.head().is_err());
        }
    }

    #[test]
    fn an_error_response_has_its_fields_and_no_way_to_break_out() {
        let mut out = BytesMut::new();
        Complaint::fatal("57P05", "gone\0Cnope")
            .detail("a")
            .hint("b")
            .write(&mut out);
        assert_eq!(&out[5..], b"SFATAL\0VFATAL\0C57P05\0MgoneCnope\0Da\0Hb\0\0");
        assert_eq!(out[1..5], (out.len() as i32 - 1).to_be_bytes());
    }
}
