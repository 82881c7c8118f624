//! Two runs compared, and the differences that are known.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::stage::failed;
use super::{Ran, Test};
use crate::Failure;

/// How many characters of what a test said are shown in a line.
const DETAIL_MAX: usize = 200;

/// Whether a known difference is there in every run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// It is: once it is gone its line has to go too.
    Always,
    /// It depends on timing.
    Sometimes,
}

/// A line of the list.
#[derive(Debug)]
struct Line {
    suite: String,
    test: String,
    kind: Kind,
}

/// The list of known differences.
#[derive(Debug)]
pub(crate) struct Known(Vec<Line>);

/// What came of comparing.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// How many tests there are, on either side.
    pub(crate) tests: usize,
    /// How many have the same result on both.
    pub(crate) same: usize,
    /// Differences in the list.
    pub(crate) known: Vec<String>,
    /// Differences that are not.
    pub(crate) unexpected: Vec<String>,
    /// What is in the list and no longer differs.
    pub(crate) gone: Vec<String>,
}

impl Known {
    /// Reads lines of `suite | test | always or sometimes | reason`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut lines = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: &str| format!("known.txt, line {}: {what}", number + 1);
            let fields: Vec<&str> = line.split(" | ").map(str::trim).collect();
            let [suite, test, kind, reason] = fields.as_slice() else {
                return Err(wrong("write suite | test | always or sometimes | reason"));
            };
            let kind = match *kind {
                "always" => Kind::Always,
                "sometimes" => Kind::Sometimes,
                _ => return Err(wrong("the third field is always or sometimes")),
            };
            if reason.is_empty() {
                return Err(wrong("a reason is missing"));
            }
            lines.push(Line {
                suite: (*suite).to_owned(),
                test: (*test).to_owned(),
                kind,
            });
        }
        Ok(Self(lines))
    }

    /// The suites that it names.
    #[cfg(test)]
    pub(crate) fn suites(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|line| line.suite.as_str())
    }

    /// Compares the two sides of a suite.
    pub(crate) fn judge(
        &self,
        suite: &str,
        direct: &BTreeMap<String, Test>,
        through: &BTreeMap<String, Test>,
    ) -> Verdict {
        let of_suite = || self.0.iter().filter(|line| line.suite == suite);
        let mut verdict = Verdict::default();
        let only = through.keys().filter(|name| !direct.contains_key(*name));
        for name in direct.keys().chain(only) {
            verdict.tests += 1;
            let result = |side: &BTreeMap<String, Test>| side.get(name).map(|t| t.result.clone());
            if result(direct) == result(through) {
                verdict.same += 1;
            } else if of_suite().any(|line| line.test == *name) {
                verdict.known.push(name.clone());
            } else {
                verdict.unexpected.push(name.clone());
            }
        }
        verdict.gone = of_suite()
            .filter(|line| line.kind == Kind::Always && !verdict.known.contains(&line.test))
            .map(|line| line.test.clone())
            .collect();
        verdict
    }
}

impl Verdict {
    /// How much of it fails the run.
    pub(crate) fn wrong(&self) -> usize {
        self.unexpected.len() + self.gone.len()
    }

    /// Keeps of what was unexpected what `again` has too, and gives the rest.
    pub(crate) fn confirm(&mut self, again: &Self) -> Vec<String> {
        let mut once = Vec::new();
        for (mine, theirs) in [
            (&mut self.unexpected, &again.unexpected),
            (&mut self.gone, &again.gone),
        ] {
            let all = std::mem::take(mine).into_iter();
            let (twice, rest): (Vec<_>, Vec<_>) = all.partition(|name| theirs.contains(name));
            *mine = twice;
            once.extend(rest);
        }
        once
    }

    /// Writes both results of every difference into `folder`.
    pub(crate) fn keep(&self, folder: &Path, direct: &Ran, through: &Ran) -> Result<(), Failure> {
        for name in self.unexpected.iter().chain(&self.known) {
            fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
            for (side, ran) in [("direct", direct), ("curfew", through)] {
                let plain = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
                let path = folder.join(format!("{plain}.{side}"));
                let test = ran.tests.get(name);
                let mut text = test.map(|test| test.result.clone()).unwrap_or_default();
                if let Some(test) = test {
                    text.extend(test.detail.as_bytes());
                }
                fs::write(&path, text).map_err(|error| failed(&path, &error))?;
            }
        }
        Ok(())
    }

    /// What differs, in words.
    pub(crate) fn lines(&self, direct: &Ran, through: &Ran) -> Vec<String> {
        let said = |ran: &Ran, name: &String| {
            let test = ran.tests.get(name);
            let detail = test.map_or("is not there", |test| test.detail.as_str());
            let words: Vec<&str> = detail.split_whitespace().collect();
            words.join(" ").chars().take(DETAIL_MAX).collect::<String>()
        };
        let mut lines = Vec::new();
        for name in &self.unexpected {
            lines.push(format!("DIFFERS {name}"));
            let line = first_difference(direct.tests.get(name), through.tests.get(name));
            lines.push(format!("  directly: {} {}", line.0, said(direct, name)));
            lines.push(format!(
                "  through Curfew: {} {}",
                line.1,
                said(through, name)
            ));
        }
        for name in &self.gone {
            lines.push(format!(
                "GONE {name}: known.txt lists a difference that is not there"
            ));
        }
        for name in &self.known {
            lines.push(format!("known difference: {name}"));
        }
        lines
    }
}

/// The first lines of two results that are not the same.
fn first_difference(direct: Option<&Test>, through: Option<&Test>) -> (String, String) {
    let text = |test: Option<&Test>| {
        let bytes = test.map(|test| test.result.clone()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (direct, through) = (text(direct), text(through));
    let (mut one, mut other) = (direct.lines(), through.lines());
    loop {
        match (one.next(), other.next()) {
            (Some(a), Some(b)) if a == b => {}
            (a, b) => {
                return [a, b]
                    .map(|line| line.unwrap_or_default().to_owned())
                    .into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# a remark\n\
        regress | one | always | it is so\n\
        regress | two | sometimes | by timing\n\
        other | three | always | elsewhere\n";

    fn side(results: &[(&str, &str)]) -> BTreeMap<String, Test> {
        let test = |result: &str| Test {
            passed: true,
            result: result.as_bytes().to_vec(),
            detail: String::new(),
        };
        let named = results
            .iter()
            .map(|(name, r)| ((*name).to_owned(), test(r)));
        named.collect()
    }

    #[test]
    fn differences_are_known_or_not_and_known_ones_must_stay() {
        let known = Known::parse(LIST).unwrap();
        let direct = side(&[("one", "a"), ("two", "a"), ("four", "a"), ("six", "a")]);
        let through = side(&[
            ("one", "b"),
            ("two", "a"),
            ("four", "b"),
            ("five", "a"),
            ("six", "a"),
        ]);
        let verdict = known.judge("regress", &direct, &through);
        assert_eq!((verdict.tests, verdict.same), (5, 2));
        assert_eq!(verdict.known, ["one"]);
        assert_eq!(verdict.unexpected, ["four", "five"]);
        assert_eq!(verdict.gone, [""; 0]);
        assert_eq!(verdict.wrong(), 2);
        let verdict = known.judge("regress", &direct, &direct);
        assert_eq!(
            (verdict.gone.as_slice(), verdict.wrong()),
            (&["one".to_owned()][..], 1)
        );
    }

    #[test]
    fn a_difference_is_one_that_comes_again() {
        let verdict = |names: &[&str]| Verdict {
            unexpected: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Verdict::default()
        };
        let mut first = verdict(&["steady", "once"]);
        assert_eq!(first.confirm(&verdict(&["steady", "later"])), ["once"]);
        assert_eq!(
            (first.unexpected.as_slice(), first.wrong()),
            (&["steady".to_owned()][..], 1)
        );
    }

    #[test]
    fn the_first_line_that_differs_is_shown() {
        let (direct, through) = (side(&[("x", "1\n2\n3")]), side(&[("x", "1\n4")]));
        let found = first_difference(direct.get("x"), through.get("x"));
        assert_eq!(found, ("2".to_owned(), "4".to_owned()));
        assert_eq!(
            first_difference(direct.get("x"), direct.get("x")),
            Default::default()
        );
    }

    #[test]
    fn a_test_that_never_ran_is_gone_too() {
        let known = Known::parse(LIST).unwrap();
        let verdict = known.judge("other", &side(&[]), &side(&[]));
        assert_eq!(verdict.gone, ["three"]);
    }

    #[test]
    fn a_line_without_a_reason_or_with_another_kind_is_refused() {
        for line in [
            "regress | one | always |",
            "regress | one | always",
            "regress | one | maybe | x",
        ] {
            let refused = Known::parse(line).unwrap_err();
            assert!(refused.starts_with("known.txt, line 1: "), "{refused}");
        }
    }
}
