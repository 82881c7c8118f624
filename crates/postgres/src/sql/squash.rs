//! Lists of values made short: `VALUES (1, 'a'), (2, 'b'), …` and `IN (1, 2, 3, …)`.
//!
//! What a statement does never rests on how many constants a list has, and a tree of a bulk insert
//! would take gigabytes. Only whole elements that are one constant go, or whole rows of them, so the
//! structure stays.

use std::ops::Range;

use pg_query::protobuf::{ScanToken, Token};

/// A text without the elements of its lists that are constants and come after others.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Squashed {
    pub(super) text: String,
    /// How many elements are gone.
    pub(super) gone: usize,
    /// How many tokens are left.
    pub(super) left: usize,
}

/// Tokens that are values.
pub(super) const LITERALS: [Token; 6] = [
    Token::Sconst,
    Token::Usconst,
    Token::Bconst,
    Token::Xconst,
    Token::Iconst,
    Token::Fconst,
];

fn is_constant(token: &ScanToken) -> bool {
    let kind = token.token();
    LITERALS.contains(&kind)
        || matches!(
            kind,
            Token::Param | Token::NullP | Token::TrueP | Token::FalseP | Token::Default
        )
}

/// Where a token stands in the text.
pub(super) fn place(token: &ScanToken) -> Option<Range<usize>> {
    Some(usize::try_from(token.start).ok()?..usize::try_from(token.end).ok()?)
}

fn is(token: Option<&ScanToken>, kind: Token) -> bool {
    token.is_some_and(|token| token.token() == kind)
}

/// The end of an element that begins at `at` and is one constant, with or without a sign.
fn element(tokens: &[ScanToken], at: usize) -> Option<usize> {
    let signed = matches!(
        tokens.get(at).map(ScanToken::token),
        Some(Token::Ascii43 | Token::Ascii45)
    );
    let at = at + usize::from(signed);
    let ends = is(tokens.get(at + 1), Token::Ascii44) || is(tokens.get(at + 1), Token::Ascii41);
    (is_constant(tokens.get(at)?) && ends).then_some(at + 1)
}

/// The end of a row of constants that begins at `at`, and how many they are.
fn row(tokens: &[ScanToken], at: usize) -> Option<(usize, usize)> {
    if !is(tokens.get(at), Token::Ascii40) {
        return None;
    }
    let (mut at, mut count) = (at + 1, 0);
    loop {
        at = element(tokens, at)?;
        count += 1;
        if is(tokens.get(at), Token::Ascii41) {
            return Some((at + 1, count));
        }
        at += 1;
    }
}

/// None where the tokens are not those of the text.
pub(super) fn squash(text: &str, tokens: &[ScanToken]) -> Option<Squashed> {
    let mut out = String::new();
    let (mut gone, mut left, mut at, mut from) = (0, 0, 0, 0);
    while let Some(token) = tokens.get(at) {
        let after_row = at > 0 && is(tokens.get(at - 1), Token::Ascii41);
        let skipped = if !is(Some(token), Token::Ascii44) {
            None
        } else if after_row {
            row(tokens, at + 1)
        } else {
            element(tokens, at + 1).map(|end| (end, 1))
        };
        match skipped {
            Some((end, count)) => {
                out.push_str(text.get(from..place(token)?.start)?);
                from = place(tokens.get(end - 1)?)?.end;
                gone += count;
                at = end;
            }
            None => {
                at += 1;
                left += 1;
            }
        }
    }
    out.push_str(text.get(from..)?);
    Some(Squashed {
        text: out,
        gone,
        left,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squashed(text: &str) -> (String, usize) {
        let tokens = pg_query::scan(text).unwrap().tokens;
        let Squashed { text, gone, left } = squash(text, &tokens).unwrap();
        assert_eq!(left, pg_query::scan(&text).unwrap().tokens.len());
        (text, gone)
    }

    #[test]
    fn only_constants_after_others_go() {
        for (text, left, gone) in [
            (
                "insert into t values (1, 'a'), (-2, $1), (default, null) returning a, 7",
                "insert into t values (1) returning a, 7",
                5,
            ),
            (
                "select 1 where a in (1, 2, 3)",
                "select 1 where a in (1)",
                2,
            ),
            ("values (1, f()), (2, g())", "values (1, f()), (2, g())", 0),
            ("values (f()), (1, 2), (g())", "values (f()), (g())", 2),
            ("select f(1, '2', a)", "select f(1, a)", 1),
            ("select 1, 2 from t", "select 1, 2 from t", 0),
            (
                "select a, date '2020-01-01')",
                "select a, date '2020-01-01')",
                0,
            ),
            ("select ','')', 1)", "select ','')')", 1),
            ("select 'x', 1 + 2)", "select 'x', 1 + 2)", 0),
            ("", "", 0),
        ] {
            assert_eq!(squashed(text), (left.to_owned(), gone), "{text}");
        }
        // What is left is as good a statement as before.
        for text in [
            "insert into t values (1, 'a'), (-2, $1)",
            "select 1 where a in (1, 2)",
        ] {
            assert!(pg_query::parse(&squashed(text).0, 0).is_ok());
        }
    }
}
