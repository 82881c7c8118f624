//! The text of a statement as the log keeps it: without values, without comments, and cut where it
//! is too long, with a mark and with what the rest names.

use pg_query::ParseResult;
use pg_query::protobuf::{ScanToken, Token};

use super::squash::{LITERALS, place, squash};

/// The longest statement text in a log entry, in bytes (the ledger's own limit).
const TEXT_BYTES_MAX: usize = 2_048;
/// What names of relations may take of it, where the text is cut.
const NAMES_BYTES_MAX: usize = 512;

/// The text with `$n` for each literal, one space where there was space or a comment, and cut to
/// what an entry takes. Where it is too long, lists of values go first. A text that is cut ends in a
/// mark with its whole length and the relations it names, so that nothing hides behind padding.
pub(super) fn text(text: &str, tokens: &[ScanToken], parsed: &ParseResult) -> String {
    let Some(whole) = without_literals(text, tokens) else {
        return format!("({} bytes)", text.len());
    };
    if whole.len() <= TEXT_BYTES_MAX {
        return whole;
    }
    let mut told = squashed(text, tokens).unwrap_or(whole);
    if told.len() <= TEXT_BYTES_MAX {
        return told;
    }
    let mut mark = format!(" … (cut; {} bytes", told.len());
    let mut relations = parsed.tables();
    relations.sort_unstable();
    relations.dedup();
    let mut left = relations.len();
    for (at, name) in relations.iter().enumerate() {
        let before = if at == 0 { "; names " } else { ", " };
        if mark.len() + before.len() + name.len() > NAMES_BYTES_MAX {
            break;
        }
        mark.push_str(before);
        mark.push_str(name);
        left -= 1;
    }
    if left > 0 {
        mark.push_str(&format!(" and {left} more"));
    }
    mark.push(')');
    told.truncate(told.floor_char_boundary(TEXT_BYTES_MAX - mark.len()));
    told + &mark
}

/// The same with lists of values made short, and a mark that says so.
fn squashed(text: &str, tokens: &[ScanToken]) -> Option<String> {
    let squashed = squash(text, tokens)?;
    if squashed.gone == 0 {
        return None;
    }
    let tokens = pg_query::scan(&squashed.text).ok()?.tokens;
    let told = without_literals(&squashed.text, &tokens)?;
    Some(format!("{told} … ({} more values)", squashed.gone))
}

/// None where these are not the tokens of the text.
fn without_literals(text: &str, tokens: &[ScanToken]) -> Option<String> {
    let param = |token: &ScanToken| -> Option<u32> {
        let place = place(token)?;
        text.get(place.start + 1..place.end)?.parse().ok()
    };
    let highest = tokens
        .iter()
        .filter(|token| token.token() == Token::Param)
        .filter_map(param)
        .max();
    let mut next = highest.unwrap_or(0);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for token in tokens {
        let place = place(token)?;
        if at < place.start && !out.is_empty() && !out.ends_with(' ') {
            out.push(' ');
        }
        let token = token.token();
        if LITERALS.contains(&token) {
            next = next.saturating_add(1);
            out.push_str(&format!("${next}"));
        } else if matches!(token, Token::SqlComment | Token::CComment) {
            if !out.is_empty() && !out.ends_with(' ') {
                out.push(' ');
            }
        } else {
            out.push_str(text.get(place.clone())?);
        }
        at = place.end;
    }
    out.truncate(out.trim_end().len());
    Some(out)
}
