//! The form of the index: which terms an entry is found by, and where it is.

use std::net::IpAddr;

use curfew_entry::{Entry, Event, SessionId, SubjectName, Timestamp};
use tantivy::schema::{
    Field, IndexRecordOption, NumericOptions, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::{TantivyDocument, Term};

use crate::words::words_of_entry;

/// Grows with each change of what is indexed; an index of another form is made anew.
pub(crate) const FORMAT: u32 = 1;

/// The fields of the index. None of an entry's content is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields {
    /// The kind, and each family it belongs to.
    pub(crate) kind: Field,
    /// Every subject it is about.
    pub(crate) subject: Field,
    /// Every session it names.
    pub(crate) session: Field,
    pub(crate) resource: Field,
    pub(crate) verb: Field,
    pub(crate) address: Field,
    /// The words of its texts.
    pub(crate) word: Field,
    /// The session that this entry starts: where its subject is named.
    pub(crate) start: Field,
    /// Its index in the log.
    at: Field,
    /// Where its frame starts in its segment.
    place: Field,
    /// Its time in microseconds.
    time: Field,
}

/// Names of the columns.
pub(crate) const AT: &str = "at";
pub(crate) const PLACE: &str = "place";
pub(crate) const TIME: &str = "time";

/// The schema and its fields.
pub(crate) fn schema() -> (Schema, Fields) {
    let mut builder = Schema::builder();
    let indexing = TextFieldIndexing::default()
        .set_tokenizer("raw")
        .set_fieldnorms(false)
        .set_index_option(IndexRecordOption::Basic);
    let term = TextOptions::default().set_indexing_options(indexing);
    let column = NumericOptions::default().set_fast();
    let fields = Fields {
        kind: builder.add_text_field("kind", term.clone()),
        subject: builder.add_text_field("subject", term.clone()),
        session: builder.add_text_field("session", term.clone()),
        resource: builder.add_text_field("resource", term.clone()),
        verb: builder.add_text_field("verb", term.clone()),
        address: builder.add_text_field("address", term.clone()),
        word: builder.add_text_field("word", term.clone()),
        start: builder.add_text_field("start", term),
        at: builder.add_u64_field(AT, column.clone()),
        place: builder.add_u64_field(PLACE, column.clone()),
        time: builder.add_u64_field(TIME, column),
    };
    (builder.build(), fields)
}

/// An address as a term.
pub(crate) fn address_term(address: IpAddr) -> String {
    address.to_string()
}

impl Fields {
    /// An entry as the index keeps it, under `time`. `whose` says whose session it is. What is no entry of a
    /// known version has its place and nothing to find it by.
    pub(crate) fn document(
        &self,
        index: u64,
        place: u64,
        bytes: &[u8],
        time: Timestamp,
        entry: Option<&Entry>,
        whose: impl FnMut(&SessionId) -> Option<SubjectName>,
    ) -> TantivyDocument {
        let mut doc = TantivyDocument::new();
        doc.add_u64(self.at, index);
        doc.add_u64(self.place, place);
        doc.add_u64(self.time, time.as_micros());
        if let Some(entry) = entry {
            self.add_facets(&mut doc, entry, whose);
            let mut words: Vec<String> = Vec::with_capacity(32);
            words_of_entry(bytes, &mut |word| words.push(word.to_owned()));
            words.sort_unstable();
            words.dedup();
            for word in &words {
                doc.add_text(self.word, word);
            }
        }
        doc
    }

    fn add_facets(
        &self,
        doc: &mut TantivyDocument,
        entry: &Entry,
        mut whose: impl FnMut(&SessionId) -> Option<SubjectName>,
    ) {
        let facets = entry.event.facets();
        let kind = entry.event.kind();
        doc.add_text(self.kind, kind);
        for (at, _) in kind.match_indices('.') {
            doc.add_text(self.kind, kind.get(..at).unwrap_or(kind));
        }
        let mut subjects: Vec<SubjectName> = facets.subject.cloned().into_iter().collect();
        for session in facets.sessions() {
            doc.add_text(self.session, session.to_string());
            subjects.extend(whose(session));
        }
        subjects.sort_unstable();
        subjects.dedup();
        for subject in subjects {
            doc.add_text(self.subject, subject.as_str());
        }
        if let Some(resource) = facets.resource {
            doc.add_text(self.resource, resource.as_str());
        }
        if let Some(verb) = facets.verb {
            doc.add_text(self.verb, verb.as_str());
        }
        if let Some(address) = facets.address {
            doc.add_text(self.address, address_term(address));
        }
        if let Event::SessionStarted { session, .. } = &entry.event {
            doc.add_text(self.start, session.to_string());
        }
    }

    /// The term by which a session's start is found.
    pub(crate) fn start_term(&self, session: &SessionId) -> Term {
        Term::from_field_text(self.start, &session.to_string())
    }
}
