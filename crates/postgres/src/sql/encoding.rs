//! How the server reads the bytes of a text: in which encoding, and with which rules for literals.

use std::borrow::Cow;

use encoding_rs as rs;

/// The settings by which the server cuts a text into words, as it last told them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct TextRules {
    encoding: Encoding,
    /// `standard_conforming_strings`: a backslash in a plain literal is just a backslash.
    plain_literals: bool,
    /// Whether the server has told of every change there may have been.
    certain: bool,
}

/// A client encoding, as far as text in it can be read.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Encoding {
    Utf8,
    Latin1,
    /// One byte a character, by this table.
    Bytewise(&'static rs::Encoding),
    /// Not read at all. In some of these the second byte of a character can be an ASCII one, so
    /// that a quote could be half a letter.
    Unread,
}

impl Default for TextRules {
    fn default() -> Self {
        Self {
            encoding: Encoding::Utf8,
            plain_literals: true,
            certain: true,
        }
    }
}

impl TextRules {
    /// Takes in a setting that the server has told.
    pub(crate) fn note(&mut self, name: &str, value: &str) {
        match name {
            "client_encoding" => self.encoding = Encoding::named(value),
            "standard_conforming_strings" => self.plain_literals = value == "on",
            _ => {}
        }
    }

    /// The same rules, where the server may have changed them and not said so yet.
    pub(crate) const fn in_doubt(self) -> Self {
        Self {
            certain: false,
            ..self
        }
    }

    /// The text as the server reads it; none where that is not known. ASCII without a backslash is
    /// the same in every encoding and under every rule.
    pub(crate) fn read(self, text: &[u8]) -> Option<Cow<'_, str>> {
        let plain = text.is_ascii() && !text.contains(&b'\\');
        let readable = plain || (self.certain && (self.plain_literals || !text.contains(&b'\\')));
        readable.then(|| self.decode(text)).flatten()
    }

    /// A name that stands in a message by itself.
    pub(crate) fn name(self, name: &[u8]) -> Option<Cow<'_, str>> {
        let readable = name.is_ascii() || self.certain;
        readable.then(|| self.decode(name)).flatten()
    }

    fn decode(self, text: &[u8]) -> Option<Cow<'_, str>> {
        if text.is_ascii() {
            return std::str::from_utf8(text).ok().map(Cow::Borrowed);
        }
        match self.encoding {
            Encoding::Utf8 => std::str::from_utf8(text).ok().map(Cow::Borrowed),
            Encoding::Latin1 => Some(Cow::Owned(text.iter().copied().map(char::from).collect())),
            Encoding::Bytewise(table) => {
                table.decode_without_bom_handling_and_without_replacement(text)
            }
            Encoding::Unread => None,
        }
    }
}

impl Encoding {
    /// By PostgreSQL's name. It compares these by their letters and digits alone (`pg_char_to_encoding`).
    fn named(name: &str) -> Self {
        let name: String = name
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_lowercase())
            .collect();
        match name.as_str() {
            // With SQL_ASCII bytes go to the server as they are: where they are not UTF-8 nothing
            // is known of them.
            "utf8" | "unicode" | "sqlascii" => Self::Utf8,
            "latin1" | "iso88591" => Self::Latin1,
            "latin2" | "iso88592" => Self::Bytewise(rs::ISO_8859_2),
            "latin3" | "iso88593" => Self::Bytewise(rs::ISO_8859_3),
            "latin4" | "iso88594" => Self::Bytewise(rs::ISO_8859_4),
            "iso88595" => Self::Bytewise(rs::ISO_8859_5),
            "iso88596" => Self::Bytewise(rs::ISO_8859_6),
            "iso88597" => Self::Bytewise(rs::ISO_8859_7),
            "iso88598" => Self::Bytewise(rs::ISO_8859_8),
            "latin5" | "iso88599" => Self::Bytewise(rs::WINDOWS_1254),
            "latin6" | "iso885910" => Self::Bytewise(rs::ISO_8859_10),
            "latin7" | "iso885913" => Self::Bytewise(rs::ISO_8859_13),
            "latin8" | "iso885914" => Self::Bytewise(rs::ISO_8859_14),
            "latin9" | "iso885915" => Self::Bytewise(rs::ISO_8859_15),
            "latin10" | "iso885916" => Self::Bytewise(rs::ISO_8859_16),
            "koi8r" | "koi8" => Self::Bytewise(rs::KOI8_R),
            "koi8u" => Self::Bytewise(rs::KOI8_U),
            "win866" | "alt" | "windows866" => Self::Bytewise(rs::IBM866),
            "win874" | "windows874" => Self::Bytewise(rs::WINDOWS_874),
            "win1250" | "windows1250" => Self::Bytewise(rs::WINDOWS_1250),
            "win1251" | "windows1251" | "win" => Self::Bytewise(rs::WINDOWS_1251),
            "win1252" | "windows1252" => Self::Bytewise(rs::WINDOWS_1252),
            "win1253" | "windows1253" => Self::Bytewise(rs::WINDOWS_1253),
            "win1254" | "windows1254" => Self::Bytewise(rs::WINDOWS_1254),
            "win1255" | "windows1255" => Self::Bytewise(rs::WINDOWS_1255),
            "win1256" | "windows1256" => Self::Bytewise(rs::WINDOWS_1256),
            "win1257" | "windows1257" => Self::Bytewise(rs::WINDOWS_1257),
            "win1258" | "windows1258" | "abc" | "tcvn" | "tcvn5712" | "vscii" => {
                Self::Bytewise(rs::WINDOWS_1258)
            }
            _ => Self::Unread,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(encoding: &str, plain: &str) -> TextRules {
        let mut rules = TextRules::default();
        rules.note("client_encoding", encoding);
        rules.note("standard_conforming_strings", plain);
        rules
    }

    #[test]
    fn text_is_read_as_the_server_reads_it_or_not_at_all() {
        let utf8 = rules("UTF8", "on");
        assert_eq!(utf8.read("é\\".as_bytes()).as_deref(), Some("é\\"));
        assert_eq!(utf8.read(b"\xe9"), None);
        assert_eq!(rules("LATIN1", "on").read(b"\xe9").as_deref(), Some("é"));
        assert_eq!(
            rules("Windows-1252", "on").read(b"\x80").as_deref(),
            Some("€")
        );
        for unread in ["GBK", "SJIS", "EUC_JP", "a new one"] {
            assert_eq!(rules(unread, "on").read(b"\x95\\"), None);
            assert_eq!(
                rules(unread, "on").read(b"select 1").as_deref(),
                Some("select 1")
            );
        }
        let old = rules("UTF8", "off");
        assert_eq!((old.read(b"'\\'"), old.read(b"''").is_some()), (None, true));
        let doubt = utf8.in_doubt();
        assert_eq!(
            (doubt.read(b"'\\'"), doubt.read("é".as_bytes())),
            (None, None)
        );
        assert_eq!(doubt.read(b"select 1").as_deref(), Some("select 1"));
        assert_eq!(doubt.name(b"a\\b").as_deref(), Some("a\\b"));
        assert_eq!(doubt.name("é".as_bytes()), None);
    }

    #[test]
    fn what_the_server_keeps_apart_is_kept_apart() {
        // The bytes of U+FFFD and a byte that is no UTF-8 were once the same name.
        let latin1 = rules("LATIN1", "on");
        assert_ne!(latin1.name(b"\xe9"), latin1.name(b"\xef\xbf\xbd"));
    }
}
