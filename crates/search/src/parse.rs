//! A question as it is asked: on the command line, in an address, in a form.

use std::fmt::Display;
use std::str::FromStr;

use curfew_entry::{Event, Timestamp, Verb};
use serde::{Deserialize, Serialize};

use crate::query::{KindPattern, LIMIT_DEFAULT, LIMIT_MAX, Order, Query};
use crate::when;
use crate::words::words;

/// The longest value of one field in bytes. The longest name has 64; sixteen of them with commas
/// make 1,039.
const FIELD_BYTES_MAX: usize = 1_100;

/// Values in one field at most: each is a look-up of its own.
const VALUES_MAX: usize = 16;

/// Words in one question at most.
const WORDS_MAX: usize = 16;

/// A question in words. Every field may be missing or empty; those for names take several, with
/// commas between, of which one has to fit.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Asked {
    /// Not before this moment: RFC 3339, a day, or a span such as `2h` before now.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub since: String,
    /// Before this moment, written the same way.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub until: String,
    /// Who did it, or whom it is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// In which session, or about which.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub session: String,
    /// To what.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// Which kind: `action.denied`, or a family: `action`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// What was asked to be done: `sql.write`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub verb: String,
    /// From which address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Words that all occur in its texts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Only entries below this index.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub before: String,
    /// Only entries above this index.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub after: String,
    /// So many at most, up to 1,000.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub limit: String,
    /// `newest` (first), or `oldest`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub order: String,
}

/// Why a question cannot be answered. Safe to show to whoever asked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct QueryError {
    /// The field of [`Asked`].
    pub field: &'static str,
    /// What is wrong with its value.
    pub problem: String,
    /// What to write instead.
    pub hint: String,
}

fn wrong(field: &'static str, problem: impl Display, hint: impl Display) -> QueryError {
    QueryError {
        field,
        problem: problem.to_string(),
        hint: hint.to_string(),
    }
}

/// The value as messages show it.
fn shown(value: &str) -> String {
    let cut: String = value.chars().take(60).collect();
    let more = if cut.len() < value.len() { "…" } else { "" };
    format!("`{}{more}`", cut.escape_debug())
}

/// The values of a field, between commas.
fn list<T>(
    field: &'static str,
    text: &str,
    mut read: impl FnMut(&str) -> Result<T, QueryError>,
) -> Result<Vec<T>, QueryError> {
    let values = text
        .split(',')
        .map(str::trim)
        .filter(|value| !value.is_empty());
    let read: Vec<T> = values
        .take(VALUES_MAX + 1)
        .map(&mut read)
        .collect::<Result<_, _>>()?;
    if read.len() > VALUES_MAX {
        let problem = format!("more than {VALUES_MAX} values");
        return Err(wrong(field, problem, "ask in several questions"));
    }
    Ok(read)
}

fn names<T: FromStr<Err: Display>>(field: &'static str, text: &str) -> Result<Vec<T>, QueryError> {
    list(field, text, |value| {
        value.parse().map_err(|error| {
            wrong(
                field,
                format!("{} cannot be one", shown(value)),
                format!("{error}"),
            )
        })
    })
}

fn kind(text: &str) -> Result<KindPattern, QueryError> {
    let plain = text.trim_end_matches('*').trim_end_matches('.');
    let pattern = KindPattern(plain.to_owned());
    let known = Event::KINDS.iter().any(|kind| {
        *kind == plain
            || kind
                .strip_prefix(plain)
                .is_some_and(|rest| rest.starts_with('.'))
    });
    if known {
        return Ok(pattern);
    }
    let problem = format!("{} is no kind of entry", shown(text));
    Err(wrong(
        "kind",
        problem,
        format!("kinds are {}", Event::KINDS.join(", ")),
    ))
}

fn verb(text: &str) -> Result<Verb, QueryError> {
    let found = Verb::ALL.into_iter().find(|verb| verb.as_str() == text);
    found.ok_or_else(|| {
        let all: Vec<&str> = Verb::ALL.iter().map(|verb| verb.as_str()).collect();
        let problem = format!("{} is no verb", shown(text));
        wrong("verb", problem, format!("verbs are {}", all.join(", ")))
    })
}

fn moment(
    field: &'static str,
    text: &str,
    now: Timestamp,
) -> Result<Option<Timestamp>, QueryError> {
    if text.is_empty() {
        return Ok(None);
    }
    let at = when::moment(text, now);
    at.map(Some)
        .ok_or_else(|| wrong(field, format!("{} is no moment", shown(text)), when::HOW))
}

fn number(field: &'static str, text: &str) -> Result<Option<u64>, QueryError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let problem = format!("{} is no whole number", shown(text));
        wrong(
            field,
            problem,
            "an index is what an entry's line starts with",
        )
    })
}

fn all_words(text: &str) -> Result<Vec<String>, QueryError> {
    let mut found = Vec::new();
    words(text, false, &mut |word| {
        if !found.iter().any(|held| held == word) {
            found.push(word.to_owned());
        }
    });
    if found.is_empty() && !text.is_empty() {
        let problem = format!("{} has no word in it", shown(text));
        return Err(wrong("text", problem, "words are letters, digits and '_'"));
    }
    if found.len() > WORDS_MAX {
        let problem = format!("more than {WORDS_MAX} words");
        return Err(wrong(
            "text",
            problem,
            "leave some out: all of them have to occur",
        ));
    }
    Ok(found)
}

impl Asked {
    fn fields(&self) -> [(&'static str, &str); 13] {
        [
            ("since", &self.since),
            ("until", &self.until),
            ("subject", &self.subject),
            ("session", &self.session),
            ("resource", &self.resource),
            ("kind", &self.kind),
            ("verb", &self.verb),
            ("address", &self.address),
            ("text", &self.text),
            ("before", &self.before),
            ("after", &self.after),
            ("limit", &self.limit),
            ("order", &self.order),
        ]
    }

    /// Checks the question. A span such as `2h` lies before `now`.
    ///
    /// # Errors
    /// Names the field, what is wrong there and what to write instead.
    pub fn check(&self, now: Timestamp) -> Result<Query, QueryError> {
        let long = self
            .fields()
            .into_iter()
            .find(|(_, text)| text.len() > FIELD_BYTES_MAX);
        if let Some((field, _)) = long {
            let problem = format!("longer than {FIELD_BYTES_MAX} bytes");
            return Err(wrong(field, problem, "ask in several questions"));
        }
        let [since, until, .., order] = self.fields().map(|(_, text)| text.trim());
        let since = moment("since", since, now)?;
        let until = moment("until", until, now)?;
        if let (Some(from), Some(to)) = (since, until)
            && from >= to
        {
            let problem = format!("{from} is not before {to}");
            return Err(wrong("since", problem, "nothing lies between; swap them"));
        }
        let order = match order {
            "" | "newest" => Order::Newest,
            "oldest" => Order::Oldest,
            other => {
                let problem = format!("{} is no order", shown(other));
                return Err(wrong("order", problem, "write newest or oldest"));
            }
        };
        Ok(Query {
            since,
            until,
            subjects: names("subject", &self.subject)?,
            sessions: names("session", &self.session)?,
            resources: names("resource", &self.resource)?,
            kinds: list("kind", &self.kind, kind)?,
            verbs: list("verb", &self.verb, verb)?,
            addresses: names("address", &self.address)?,
            words: all_words(self.text.trim())?,
            before: number("before", self.before.trim())?,
            after: number("after", self.after.trim())?,
            order,
            limit: limit(self.limit.trim())?,
        })
    }

    /// Whether nothing is asked for but a place in the log.
    pub fn is_open(&self) -> bool {
        let place = ["before", "after", "limit", "order"];
        self.fields()
            .iter()
            .all(|(field, text)| text.is_empty() || place.contains(field))
    }
}

fn limit(text: &str) -> Result<usize, QueryError> {
    match number("limit", text)? {
        None => Ok(LIMIT_DEFAULT),
        Some(limit) => match usize::try_from(limit) {
            Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
            _ => Err(wrong(
                "limit",
                format!("{limit} is out of range"),
                format!("1 to {LIMIT_MAX}; go on from there with the cursor"),
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(field: &str, value: &str) -> Result<Query, QueryError> {
        let json = serde_json::json!({ field: value });
        let asked: Asked = serde_json::from_value(json).unwrap();
        asked.check(Timestamp::from_micros(1_800_000_000_000_000))
    }

    #[test]
    fn a_question_is_read_field_by_field() {
        assert_eq!(
            asked("kind", "action.*").unwrap().kinds,
            [KindPattern("action".into())]
        );
        assert_eq!(
            asked("kind", "action.denied, session").unwrap().kinds.len(),
            2
        );
        assert_eq!(asked("verb", "sql.read").unwrap().verbs, [Verb::SqlRead]);
        assert_eq!(
            asked("text", "Drop TABLE drop").unwrap().words,
            ["drop", "table"]
        );
        assert_eq!(asked("address", "10.0.0.1,::1").unwrap().addresses.len(), 2);
        assert_eq!(asked("limit", "7").unwrap().limit, 7);
        assert_eq!(asked("order", "oldest").unwrap().order, Order::Oldest);
        assert_eq!(asked("subject", " ").unwrap().subjects.len(), 0);
    }

    #[test]
    fn what_was_asked_is_kept_without_the_words() {
        let asked = Asked {
            text: "hunter2 Password".into(),
            kind: "action.*".into(),
            subject: "ada, bob".into(),
            since: "1h".into(),
            ..Asked::default()
        };
        let now = Timestamp::from_micros(1_800_000_000_000_000);
        let told = asked.check(now).unwrap().recorded();
        assert_eq!(
            told,
            "since=2027-01-15T07:00:00.000000Z subject=ada,bob kind=action words=2:6b2b11cb2b10a94e"
        );
        assert_eq!(Asked::default().check(now).unwrap().recorded(), "");
    }

    #[test]
    fn what_is_wrong_names_its_field_and_what_to_write() {
        for (field, value, hint) in [
            ("kind", "action.dennied", "action.denied"),
            ("kind", "act", "action.denied"),
            ("verb", "sql", "sql.read"),
            ("since", "tomorrow", "2h"),
            ("session", "s_1", "24"),
            ("subject", "a b", "letters"),
            ("address", "10.0.0", ""),
            ("text", "***", "letters"),
            ("limit", "0", "1 to 1000"),
            ("limit", "5000", "1 to 1000"),
            ("before", "x", "index"),
            ("order", "up", "oldest"),
        ] {
            let error = asked(field, value).unwrap_err();
            assert_eq!(error.field, field);
            assert!(error.problem.contains(value.trim()), "{error}");
            assert!(error.hint.contains(hint), "{}", error.hint);
        }
        assert_eq!(asked("text", &"x ".repeat(900)).unwrap_err().field, "text");
        let many: Vec<String> = (0..17).map(|n| format!("u{n}")).collect();
        assert_eq!(
            asked("subject", &many.join(",")).unwrap_err().field,
            "subject"
        );
        let mut swapped = Asked {
            since: "1h".into(),
            until: "2h".into(),
            ..Asked::default()
        };
        let now = Timestamp::from_micros(1_800_000_000_000_000);
        assert_eq!(swapped.check(now).unwrap_err().field, "since");
        swapped.until = String::new();
        assert!(swapped.check(now).is_ok());
        assert!(serde_json::from_str::<Asked>(r#"{"knid":"x"}"#).is_err());
    }
}
