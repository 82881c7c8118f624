//! Changes bytes the way damage and attackers do, by a seed.

/// Numbers at which arithmetic turns.
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    7,
    8,
    127,
    255,
    256,
    65_535,
    65_536,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Pieces that mean something in one of the formats.
const WORDS: [&[u8]; 18] = [
    b"\n",
    b"\n\n",
    "\u{2014} ".as_bytes(),
    b"+",
    b"/",
    b"x",
    b".p/",
    b"0",
    b"-1",
    b" ",
    b"\r\n",
    b"\"",
    b"\\u0000",
    b"{",
    b"}",
    b"=",
    "\u{e9}".as_bytes(),
    b"18446744073709551616",
];

/// Chance by seed: SplitMix64. Not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Prng(u64);

impl Prng {
    /// The stream of one case of a seed.
    pub(crate) fn of_case(seed: u64, case: u64) -> Self {
        let mut prng = Self(seed);
        let start = prng.next();
        Self(start ^ case.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; zero where `end` is zero.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let end = end as u64;
        usize::try_from(self.next().checked_rem(end).unwrap_or(0)).unwrap_or(0)
    }

    /// One of the items.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// A number at which arithmetic turns, or one beside it.
    pub(crate) fn edge(&mut self) -> u64 {
        let edge = *self.pick(&EDGES);
        match self.below(4) {
            0 => edge.wrapping_add(1),
            1 => edge.wrapping_sub(1),
            2 => self.next(),
            _ => edge,
        }
    }
}

/// `bytes` with one to four changes; what is spliced in comes from `others` too.
pub(crate) fn mutated(prng: &mut Prng, bytes: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=prng.below(4) {
        change(prng, &mut bytes, others);
    }
    bytes
}

/// A range within `bytes`, mostly short.
fn range(prng: &mut Prng, len: usize) -> std::ops::Range<usize> {
    let start = prng.below(len + 1);
    let most = if prng.below(4) == 0 { len } else { 40 };
    start..(start + prng.below(most + 1)).min(len)
}

fn change(prng: &mut Prng, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
    let len = bytes.len();
    let place = range(prng, len);
    let at = place.start;
    match prng.below(10) {
        0 | 1 if at < len => bytes[at] ^= 1 << prng.below(8),
        2 if at < len => bytes[at] = u8::try_from(prng.below(256)).unwrap_or(0),
        3 => drop(bytes.drain(place)),
        4 => {
            let copy = bytes[place].to_vec();
            let to = prng.below(len + 1);
            bytes.splice(to..to, copy);
        }
        5 => {
            let word = *prng.pick(&WORDS);
            bytes.splice(at..at, word.iter().copied());
        }
        6 if !others.is_empty() => {
            let other = prng.pick(others);
            let taken = range(prng, other.len());
            bytes.splice(place, other[taken].iter().copied());
        }
        7 => bytes.truncate(at),
        8 => binary_number(prng, bytes, at),
        _ => decimal_number(prng, bytes, at),
    }
}

/// Writes a number over what is there, as the binary formats hold them.
fn binary_number(prng: &mut Prng, bytes: &mut [u8], at: usize) {
    let edge = prng.edge();
    let number = if prng.below(2) == 0 {
        edge.to_le_bytes().to_vec()
    } else {
        edge.to_be_bytes().to_vec()
    };
    let len = [2, 4, 8][prng.below(3)];
    for (byte, new) in bytes.iter_mut().skip(at).zip(number.iter().take(len)) {
        *byte = *new;
    }
}

/// Puts another number where the next one stands.
fn decimal_number(prng: &mut Prng, bytes: &mut Vec<u8>, at: usize) {
    let Some(start) = bytes.iter().skip(at).position(u8::is_ascii_digit) else {
        return;
    };
    let start = at + start;
    let digits = bytes[start..].iter().take_while(|b| b.is_ascii_digit());
    let end = start + digits.count();
    let number = prng.edge().to_string();
    bytes.splice(start..end, number.into_bytes());
}
