//! The common kinds of entry, read and held to their canonical form in one pass.
//!
//! Most entries of a ledger are actions and what closes them. The plain way reads an entry, writes
//! it again and compares; this walks along the canonical form itself. What it reads, the plain way
//! reads as the same value; whatever it does not know it leaves to the plain way, which alone says
//! what is wrong. A property test holds the two together.

use std::str::FromStr;

use crate::conceal::{Concealed, Field};
use crate::event::{ActionClosed, ActionDetail, ClosedBy, DenialCause, Entry, Event};
use crate::limits::{Aal, Deadline, DeadlineCause, Demands, RecordLevel};
use crate::resource::{AccountClass, Verb};
use crate::session::Context;
use crate::time::{Span, Timestamp};

/// Days before each month of a year without a leap day.
const DAYS_BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

/// Characters of a moment in canonical form.
const TIME_BYTES: usize = "2026-11-23T16:40:00.123456Z".len();

/// Room for a text with escapes, in bytes, unless the entry is shorter.
const TEXT_ROOM: usize = 256;

/// Reads an entry; `None` where the plain way must look at it.
pub(super) fn read(bytes: &[u8]) -> Option<Entry> {
    let mut scan = Scan { rest: bytes };
    scan.skip(b"{\"v\":1,\"time\":\"")?;
    let time = scan.moment()?;
    scan.skip(b",\"kind\":\"")?;
    let kind = scan.until_quote()?;
    scan.skip(b",\"session\":\"")?;
    let event = match kind {
        b"action.allowed" => allowed(&mut scan)?,
        b"action.denied" => denied(&mut scan)?,
        b"action.stepped_up" => stepped_up(&mut scan)?,
        b"action.closed" => closed(&mut scan)?,
        b"session.active" => Event::SessionActive {
            session: scan.id()?,
            active_at: {
                scan.skip(b",\"active_at\":\"")?;
                scan.moment()?
            },
        },
        _ => return None,
    };
    (scan.rest == b"}").then_some(Entry { time, event })
}

fn allowed(scan: &mut Scan<'_>) -> Option<Event> {
    let session = scan.id()?;
    let action = action(scan)?;
    scan.skip(b",\"rules\":[")?;
    let rules = scan.ids()?;
    let demands = if scan.skip(b",\"demands\":{").is_some() {
        demands(scan)?
    } else {
        Demands::default()
    };
    Some(Event::ActionAllowed {
        session,
        action,
        rules,
        demands,
    })
}

fn stepped_up(scan: &mut Scan<'_>) -> Option<Event> {
    let session = scan.id()?;
    let action = action(scan)?;
    scan.skip(b",\"rules\":[")?;
    let rules = scan.ids()?;
    let passed = match scan.skip(b",\"passed\":") {
        Some(()) => Some(deadline(scan)?),
        None => None,
    };
    let assurance = match scan.skip(b",\"need_aal\":") {
        Some(()) => Some(aal(scan)?),
        None => None,
    };
    Some(Event::ActionSteppedUp {
        session,
        action,
        rules,
        passed,
        assurance,
    })
}

fn denied(scan: &mut Scan<'_>) -> Option<Event> {
    let session = scan.id()?;
    let action = action(scan)?;
    scan.skip(b",\"cause\":\"")?;
    let cause = match scan.until_quote()? {
        b"not_permitted" => DenialCause::NotPermitted,
        b"forbidden" => DenialCause::Forbidden,
        _ => return None,
    };
    let rules = match scan.skip(b",\"rules\":[") {
        // Where there are none, none are written.
        Some(()) => scan.ids().filter(|rules: &Vec<_>| !rules.is_empty())?,
        None => Vec::new(),
    };
    Some(Event::ActionDenied {
        session,
        action,
        cause,
        rules,
    })
}

fn closed(scan: &mut Scan<'_>) -> Option<Event> {
    let session = scan.id()?;
    scan.skip(b",\"action\":")?;
    let action = scan.number()?;
    scan.skip(b",\"by\":\"")?;
    let by = match scan.until_quote()? {
        b"client" => ClosedBy::Client,
        b"upstream" => ClosedBy::Upstream,
        b"limit" => ClosedBy::Limit,
        b"session_end" => ClosedBy::SessionEnd,
        _ => return None,
    };
    let deadline = match scan.skip(b",\"deadline\":") {
        Some(()) => Some(deadline(scan)?),
        None => None,
    };
    scan.skip(b",\"closed\":\"")?;
    let closed = scan.moment()?;
    let late = scan.span(b",\"late_us\":")?;
    scan.skip(b",\"bytes_in\":")?;
    let bytes_in = scan.number()?;
    scan.skip(b",\"bytes_out\":")?;
    let bytes_out = scan.number()?;
    Some(Event::ActionClosed(ActionClosed {
        session,
        action,
        by,
        deadline,
        closed,
        late,
        bytes_in,
        bytes_out,
    }))
}

fn action(scan: &mut Scan<'_>) -> Option<ActionDetail> {
    scan.skip(b",\"verb\":\"")?;
    let verb = scan.until_quote()?;
    let verb = Verb::ALL
        .into_iter()
        .find(|known| known.as_str().as_bytes() == verb)?;
    scan.skip(b",\"resource\":\"")?;
    let resource = scan.id()?;
    let context = match scan.skip(b",\"context\":{\"address\":\"") {
        Some(()) => Some(context(scan)?),
        None => None,
    };
    let connection = match scan.skip(b",\"connection\":") {
        Some(()) => Some(scan.number()?),
        None => None,
    };
    let account = match scan.skip(b",\"account\":\"") {
        Some(()) => {
            let name = scan.until_quote()?;
            let mut known = AccountClass::ALL.into_iter();
            Some(known.find(|class| class.as_str().as_bytes() == name)?)
        }
        None => None,
    };
    Some(ActionDetail {
        verb,
        resource,
        context,
        connection,
        account,
        method: scan.optional_text(b",\"method\":\"")?,
        path: scan.optional_text(b",\"path\":\"")?,
        statement: scan.optional_text(b",\"statement\":\"")?,
        fingerprint: scan.optional_text(b",\"fingerprint\":\"")?,
        prepares: scan.skip(b",\"prepares\":true").is_some(),
        client: scan.optional_text(b",\"client\":\"")?,
        search: scan.optional_text(b",\"search\":\"")?,
        target: match scan.skip(b",\"target\":\"") {
            Some(()) => Some(scan.id()?),
            None => None,
        },
        passive: scan.skip(b",\"passive\":true").is_some(),
        concealed: match scan.skip(b",\"concealed\":{") {
            Some(()) => concealed(scan)?,
            None => Concealed::new(),
        },
    })
}

/// Commitments in the order of their fields. Where there are none, none are written.
fn concealed(scan: &mut Scan<'_>) -> Option<Concealed> {
    let mut concealed = Concealed::new();
    loop {
        scan.skip(b"\"")?;
        let name = scan.until_quote()?;
        let field = Field::ALL
            .into_iter()
            .find(|field| field.as_str().as_bytes() == name)?;
        if concealed.keys().next_back() >= Some(&field) {
            return None;
        }
        scan.skip(b":\"")?;
        concealed.insert(field, scan.id()?);
        if scan.skip(b"}").is_some() {
            return Some(concealed);
        }
        scan.skip(b",")?;
    }
}

fn context(scan: &mut Scan<'_>) -> Option<Context> {
    let text = std::str::from_utf8(scan.until_quote()?).ok()?;
    let address: std::net::IpAddr = text.parse().ok()?;
    // One address, one spelling.
    if address.to_string() != text {
        return None;
    }
    scan.skip(b",\"network\":\"")?;
    let network = scan.text()?;
    scan.skip(b"}")?;
    Some(Context { address, network })
}

fn demands(scan: &mut Scan<'_>) -> Option<Demands> {
    // The first one has no comma before it, which the brace has taken the place of.
    let mut first = true;
    let mut span = |scan: &mut Scan<'_>, name: &[u8]| -> Option<Option<Span>> {
        let rest = scan.rest;
        if !first {
            match scan.skip(b",") {
                Some(()) => {}
                None => return Some(None),
            }
        }
        if scan.skip_any(name).is_none() {
            scan.rest = rest;
            return Some(None);
        }
        first = false;
        scan.number().map(|micros| Some(Span::from_micros(micros)))
    };
    let idle = span(scan, b"\"idle_us\":")?;
    let reauth = span(scan, b"\"reauth_us\":")?;
    let lifetime = span(scan, b"\"lifetime_us\":")?;
    let name: &[u8] = if first { b"\"aal\":" } else { b",\"aal\":" };
    let assurance = match scan.skip_any(name) {
        Some(()) => Some(aal(scan)?),
        None => None,
    };
    let name: &[u8] = if first && assurance.is_none() {
        b"\"record\":\""
    } else {
        b",\"record\":\""
    };
    let record = match scan.skip_any(name) {
        Some(()) => match scan.until_quote()? {
            b"signed" => Some(RecordLevel::Signed),
            b"witnessed" => Some(RecordLevel::Witnessed),
            b"timestamped" => Some(RecordLevel::Timestamped),
            _ => return None,
        },
        None => None,
    };
    scan.skip(b"}")?;
    let demands = Demands {
        idle,
        reauth,
        lifetime,
        assurance,
        record,
    };
    // Where there are none, none are written.
    (demands != Demands::default()).then_some(demands)
}

fn aal(scan: &mut Scan<'_>) -> Option<Aal> {
    u8::try_from(scan.number()?).ok()?.try_into().ok()
}

fn deadline(scan: &mut Scan<'_>) -> Option<Deadline> {
    scan.skip(b"{\"at\":\"")?;
    let at = scan.moment()?;
    scan.skip(b",\"cause\":\"")?;
    let cause = match scan.until_quote()? {
        b"idle" => DeadlineCause::Idle,
        b"reauth" => DeadlineCause::Reauth,
        b"lifetime" => DeadlineCause::Lifetime,
        _ => return None,
    };
    scan.skip(b"}")?;
    Some(Deadline { at, cause })
}

/// What has not been read yet.
struct Scan<'a> {
    rest: &'a [u8],
}

impl<'a> Scan<'a> {
    /// Goes past these bytes, if they come next. How many there are is known when this is compiled, so
    /// that comparing them takes a few instructions and no call.
    fn skip<const N: usize>(&mut self, bytes: &[u8; N]) -> Option<()> {
        let (next, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = (next == bytes).then_some(rest)?;
        Some(())
    }

    /// The same, whatever their number.
    fn skip_any(&mut self, bytes: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(bytes)?;
        Some(())
    }

    /// The bytes up to the next quote, past which it goes.
    fn until_quote(&mut self) -> Option<&'a [u8]> {
        let end = position(self.rest, |byte| byte == b'"')?;
        let (text, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.get(1..)?;
        Some(text)
    }

    /// An identifier up to its closing quote; none has anything in it that JSON would escape.
    fn id<T: FromStr>(&mut self) -> Option<T> {
        std::str::from_utf8(self.until_quote()?).ok()?.parse().ok()
    }

    /// Identifiers up to the closing bracket.
    fn ids<T: FromStr>(&mut self) -> Option<Vec<T>> {
        let mut ids = Vec::new();
        if self.skip(b"]").is_some() {
            return Some(ids);
        }
        ids.reserve_exact(1);
        loop {
            self.skip(b"\"")?;
            ids.push(self.id()?);
            if self.skip(b"]").is_some() {
                return Some(ids);
            }
            self.skip(b",")?;
        }
    }

    fn optional_text<const N: usize>(&mut self, name: &[u8; N]) -> Option<Option<String>> {
        match self.skip(name) {
            Some(()) => self.text().map(Some),
            None => Some(None),
        }
    }

    /// A text up to its closing quote, with the escapes the canonical form has.
    fn text(&mut self) -> Option<String> {
        let mut text = Vec::new();
        loop {
            let end = position(self.rest, |byte| {
                (byte < 0x20) | (byte == b'"') | (byte == b'\\')
            })?;
            let (plain, rest) = self.rest.split_at_checked(end)?;
            let (byte, rest) = rest.split_first()?;
            if text.is_empty() && *byte == b'\\' {
                // What comes behind an escape is seldom longer than that: room for it at once.
                text.reserve(self.rest.len().min(TEXT_ROOM));
            }
            text.extend_from_slice(plain);
            self.rest = rest;
            match byte {
                b'"' => return String::from_utf8(text).ok(),
                b'\\' => text.push(self.escaped()?),
                _ => return None,
            }
        }
    }

    /// What stands behind a backslash. Other characters are never escaped, and these in no other
    /// way.
    fn escaped(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        match byte {
            b'"' => Some(b'"'),
            b'\\' => Some(b'\\'),
            b'b' => Some(0x08),
            b't' => Some(b'\t'),
            b'n' => Some(b'\n'),
            b'f' => Some(0x0c),
            b'r' => Some(b'\r'),
            // Rare control characters.
            _ => None,
        }
    }

    /// A whole number without surplus zeros.
    fn number(&mut self) -> Option<u64> {
        let end = self.rest.iter().position(|byte| !byte.is_ascii_digit())?;
        let (digits, rest) = self.rest.split_at_checked(end)?;
        if digits.is_empty() || (digits.len() > 1 && digits.first() == Some(&b'0')) {
            return None;
        }
        self.rest = rest;
        digits.iter().try_fold(0_u64, |number, digit| {
            number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
        })
    }

    /// A span behind its name, if it comes next.
    fn span<const N: usize>(&mut self, name: &[u8; N]) -> Option<Option<Span>> {
        match self.skip(name) {
            Some(()) => self.number().map(|micros| Some(Span::from_micros(micros))),
            None => Some(None),
        }
    }

    /// A moment and its closing quote.
    fn moment(&mut self) -> Option<Timestamp> {
        let (text, rest) = self.rest.split_first_chunk::<TIME_BYTES>()?;
        self.rest = rest.strip_prefix(b"\"")?;
        moment(text)
    }
}

/// Where the first byte is that is meant. Sixteen are looked at together, without a question between
/// them, which compilers make a few instructions of.
fn position(bytes: &[u8], is_meant: impl Fn(u8) -> bool + Copy) -> Option<usize> {
    let (chunks, rest) = bytes.as_chunks::<16>();
    let holds = |chunk: &[u8; 16]| {
        chunk
            .iter()
            .fold(false, |found, byte| found | is_meant(*byte))
    };
    let start = match chunks.iter().position(holds) {
        Some(chunk) => chunk * 16,
        None => bytes.len() - rest.len(),
    };
    let rest = bytes.get(start..)?;
    Some(start + rest.iter().position(|byte| is_meant(*byte))?)
}

/// The moment that a text in canonical form tells; none before 1970, on leap seconds, or past the
/// last that can be told.
fn moment(text: &[u8; TIME_BYTES]) -> Option<Timestamp> {
    const MARKS: [(usize, u8); 7] = [
        (4, b'-'),
        (7, b'-'),
        (10, b'T'),
        (13, b':'),
        (16, b':'),
        (19, b'.'),
        (26, b'Z'),
    ];
    if MARKS.iter().any(|(at, mark)| text.get(*at) != Some(mark)) {
        return None;
    }
    let digits = |from: usize, to: usize| {
        text.get(from..to)?.iter().try_fold(0_u64, |number, digit| {
            let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
            Some(number * 10 + digit)
        })
    };
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    let micros = digits(20, 26)?;
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let before = *DAYS_BEFORE.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    let days_of = match month {
        2 => 28 + u64::from(leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let right = year >= 1970 && (1..=days_of).contains(&day);
    if !right || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days before the year: each has 365, and leap days fall by the Gregorian rule.
    let past = year - 1;
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let days = (year - 1970) * 365 + leaps(past) - leaps(1969)
        + before
        + u64::from(month > 2 && leap(year))
        + day
        - 1;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    let micros = seconds * 1_000_000 + micros;
    // The last second is left to the plain way: libraries differ on where it ends.
    (seconds < Timestamp::MAX.as_secs()).then(|| Timestamp::from_micros(micros))
}
