//! Why a policy is refused, told with file, line, column and a hint.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

/// Why a policy is refused: one or more problems, each with its place and often a hint.
///
/// `Display` gives one line per problem: `policy.cedar:12:5: message (hint)`. As a miette
/// diagnostic each problem is shown with its source.
#[derive(Debug)]
pub struct PolicyError {
    source: Arc<NamedSource<String>>,
    problems: Vec<Problem>,
}

/// One thing that is wrong with a policy.
#[derive(Clone, Debug)]
pub struct Problem {
    source: Arc<NamedSource<String>>,
    offset: usize,
    len: usize,
    message: String,
    hint: Option<String>,
}

/// A problem before the file it is in is attached.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Draft {
    pub(super) offset: usize,
    pub(super) len: usize,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Draft {
    pub(super) fn new(span: (usize, usize), message: impl Into<String>) -> Self {
        Self {
            offset: span.0,
            len: span.1,
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What Cedar says, without its internal rule names, which mean nothing to the reader.
    pub(super) fn from_cedar(diagnostic: &dyn Diagnostic) -> Self {
        let span = diagnostic
            .labels()
            .and_then(|mut labels| labels.next())
            .map_or((0, 0), |label| (label.offset(), label.len()));
        let mut message = diagnostic.to_string();
        if let Some(rest) = message.strip_prefix("for policy `")
            && let Some((_, text)) = rest.split_once("`, ")
        {
            message = text.to_owned();
        }
        // The same attribute is missing for every action of the rule: say it once.
        if let Some((attribute, _)) = message.split_once(" in context for Action::") {
            message = format!("{attribute} in the context");
        }
        let hint = diagnostic.help().map(|help| help.to_string());
        Self {
            offset: span.0,
            len: span.1,
            message,
            hint,
        }
    }
}

impl PolicyError {
    /// Problems in order of place; Cedar repeats some once per action, so equal ones are told once.
    pub(super) fn new(name: &str, text: &str, mut drafts: Vec<Draft>) -> Self {
        drafts.sort();
        drafts.dedup();
        let source = Arc::new(NamedSource::new(name, text.to_owned()));
        let problems = drafts
            .into_iter()
            .map(|draft| Problem {
                source: Arc::clone(&source),
                offset: draft.offset.min(text.len()),
                len: draft.len.min(text.len().saturating_sub(draft.offset)),
                message: draft.message,
                hint: draft.hint,
            })
            .collect();
        Self { source, problems }
    }

    /// The problems, in order of place.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl Problem {
    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it, where there is something to say.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Line and column, both from 1; columns count characters.
    pub fn place(&self) -> (usize, usize) {
        let text = self.source.inner();
        let before = text.get(..self.offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .map_or(0, |last| last.chars().count())
            + 1;
        (line, column)
    }
}

/// The message alone: the place is in the source that a diagnostic shows.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.source.name();
        for (number, problem) in self.problems.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            let (line, column) = problem.place();
            write!(f, "{name}:{line}:{column}: {}", problem.message)?;
            if let Some(hint) = &problem.hint {
                write!(f, " ({hint})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for PolicyError {}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.hint
            .as_ref()
            .map(|hint| Box::new(hint) as Box<dyn fmt::Display + 'a>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&*self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = LabeledSpan::new(Some("here".into()), self.offset, self.len);
        Some(Box::new(std::iter::once(span)))
    }
}

impl Diagnostic for PolicyError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let name = self.source.name();
        Some(Box::new(format!(
            "{name} is refused; the policy that is in force stays so"
        )))
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(
            self.problems
                .iter()
                .map(|problem| problem as &dyn Diagnostic),
        ))
    }
}

/// The nearest of `known` to `text`, if it is near enough to be a slip of the hand.
pub(super) fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|word| (distance(text, word), word))
        .filter(|&(edits, word)| edits <= 2.max(word.len() / 3))
        .min()
        .map(|(_, word)| word)
}

/// Edits between two words, in bytes; swapping two neighbours is one edit. Names are short ASCII.
fn distance(a: &str, b: &str) -> usize {
    // Longer texts are no slip of the hand, and would cost their product in time.
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let cell = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX / 2);
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (cell(&last, j) + usize::from(x != y))
                .min(cell(&last, j + 1) + 1)
                .min(cell(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(cell(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(a.len())
}
