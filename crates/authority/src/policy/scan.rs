//! Finds where the annotations of a policy text stand. Cedar reads them but does not say where.

/// The annotations of one rule, with their places in the text.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// Where its keyword stands.
    pub(super) span: (usize, usize),
    pub(super) annotations: Vec<Annotation>,
}

/// One annotation's places, as offset and length in bytes.
#[derive(Debug)]
pub(super) struct Annotation {
    pub(super) name: String,
    pub(super) span: (usize, usize),
}

impl Scanned {
    /// Where the annotation `name` stands, or the rule itself.
    pub(super) fn place(&self, name: &str) -> (usize, usize) {
        self.annotations
            .iter()
            .find(|annotation| annotation.name == name)
            .map_or(self.span, |annotation| annotation.span)
    }
}

/// Walks a text that Cedar has already accepted; rules come in the order of the text.
pub(super) fn scan(text: &str) -> Vec<Scanned> {
    let mut rules = Vec::new();
    let mut rule: Option<Scanned> = None;
    // Annotations stand only before `permit` or `forbid`; `@` means nothing after it.
    let mut in_body = false;
    let mut pos = 0;
    while let Some(c) = text.get(pos..).and_then(|rest| rest.chars().next()) {
        let next = step(text, pos);
        if c.is_whitespace() || text[pos..].starts_with("//") {
            pos = next;
            continue;
        }
        let current = rule.get_or_insert_with(|| Scanned {
            span: (pos, c.len_utf8()),
            annotations: Vec::new(),
        });
        pos = match c {
            '@' if !in_body => {
                let (annotation, after) = annotation(text, pos);
                current.annotations.push(annotation);
                after
            }
            ';' => {
                rules.extend(rule.take());
                in_body = false;
                next
            }
            _ if !in_body => {
                // The keyword: it is what to point at when the rule as a whole is meant.
                let len = word(text, pos).max(c.len_utf8());
                current.span = (pos, len);
                in_body = true;
                pos + len
            }
            _ => next,
        };
    }
    rules
}

/// The offset behind the comment, string or character at `pos`.
fn step(text: &str, pos: usize) -> usize {
    let rest = &text[pos..];
    if rest.starts_with("//") {
        return pos + rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with('"') {
        let mut escaped = false;
        for (at, c) in rest.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return pos + at + 1,
                _ => {}
            }
        }
        return text.len();
    }
    pos + rest.chars().next().map_or(1, char::len_utf8)
}

fn word(text: &str, pos: usize) -> usize {
    text[pos..]
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len() - pos)
}

/// The annotation at `pos`, and the offset behind it: `@name` or `@name("value")`, with white
/// space and comments wherever Cedar lets them stand.
fn annotation(text: &str, pos: usize) -> (Annotation, usize) {
    let start = skip(text, pos + 1);
    let end = start + word(text, start);
    let name = text[start..end].to_owned();
    let open = skip(text, end);
    let mut after = end;
    if text[open..].starts_with('(') {
        let value = skip(text, open + 1);
        let close = skip(text, step(text, value));
        after = (close + 1).min(text.len());
    }
    let span = (pos, after - pos);
    (Annotation { name, span }, after)
}

/// The offset of the first byte from `pos` on that is neither white space nor comment.
fn skip(text: &str, mut pos: usize) -> usize {
    while pos < text.len()
        && (text[pos..].starts_with(char::is_whitespace) || text[pos..].starts_with("//"))
    {
        pos = step(text, pos);
    }
    pos.min(text.len())
}
