//! `curfew log search`: on a gateway, or on a log on this machine.

use std::path::{Path, PathBuf};

use clap::Args;
use curfew_entry::Timestamp;
use curfew_search::{
    Answer, Asked, Bounds, IndexError, Indexer, LIMIT_DEFAULT, LIMIT_MAX, Order, Query, QueryError,
    Searcher, folder_name, scan,
};
use reqwest::Url;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Indexed, show};
use crate::client::{Client, Saved, ServerArgument};
use crate::failure::{Doing, Exit, Failure, Outcome};
use crate::say;

/// How long one look into a log on this machine may take before what was found is shown.
const LOOK: std::time::Duration = std::time::Duration::from_secs(5);

/// Bytes of entries held at once.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

const AFTER_HELP: &str = "\
Names take several values with commas between, of which one has to fit; different options have to
fit all together. --text wants all its words, which are letters, digits and '_', in any order and in
upper or lower case.

A moment is written as 2026-11-23T16:40:00Z, as 2026-11-23 (UTC), or as 2h: two hours ago.

Every entry shown was read from the log and fits there as it stands. That none is shown does not
prove that there is none: an index can be incomplete. --scan reads the whole log without one, and
`curfew log verify` proves that the log is whole.

Examples:
  curfew log search --subject ada --since 2h
  curfew log search --kind action.denied,session.used_after_end --resource orders
  curfew log search --text 'drop table' --json | jq .entry.session
  curfew log search --dir /mnt/copy/ledger --address 203.0.113.7 --scan";

/// Find entries by what they say. On a gateway, reading the log is itself permitted by policy and
/// recorded, with what was asked for.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Search {
    #[command(flatten)]
    server: ServerArgument,
    #[command(flatten)]
    question: Question,
    /// Search the log in this directory on this machine instead, with an index of its own.
    #[arg(long, value_name = "DIR", conflicts_with = "server")]
    dir: Option<PathBuf>,
    /// Where that index is kept, for its owner only. It can be deleted at any time. Without it: in
    /// $XDG_CACHE_HOME/curfew/search.
    #[arg(long, value_name = "DIR", requires = "dir")]
    index: Option<PathBuf>,
    /// Use no index and read the whole log: what is not found then is not there.
    #[arg(long, requires = "dir", conflicts_with = "index")]
    scan: bool,
    /// Print one JSON object a line: the index, the subject, and the entry as it stands in the log.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Question {
    /// Not before this moment.
    #[arg(
        long,
        value_name = "MOMENT",
        default_value = "",
        hide_default_value = true
    )]
    since: String,
    /// Before this moment.
    #[arg(
        long,
        value_name = "MOMENT",
        default_value = "",
        hide_default_value = true
    )]
    until: String,
    /// Who did it, or whom it is about.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    subject: String,
    /// In which session, or about which.
    #[arg(
        long,
        value_name = "SESSION",
        default_value = "",
        hide_default_value = true
    )]
    session: String,
    /// To which resource.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    resource: String,
    /// Which kind of entry, such as action.denied, or a family of them, such as action.
    #[arg(
        long,
        value_name = "KIND",
        default_value = "",
        hide_default_value = true
    )]
    kind: String,
    /// What was asked to be done, such as sql.write.
    #[arg(
        long,
        value_name = "VERB",
        default_value = "",
        hide_default_value = true
    )]
    verb: String,
    /// From which address.
    #[arg(long, value_name = "IP", default_value = "", hide_default_value = true)]
    address: String,
    /// Words that all occur in it: paths, statements, rules, names.
    #[arg(
        long,
        value_name = "WORDS",
        default_value = "",
        hide_default_value = true
    )]
    text: String,
    /// Only entries below this index.
    #[arg(
        long,
        value_name = "INDEX",
        default_value = "",
        hide_default_value = true
    )]
    before: String,
    /// Only entries above this index.
    #[arg(
        long,
        value_name = "INDEX",
        default_value = "",
        hide_default_value = true
    )]
    after: String,
    /// How many entries at most.
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = LIMIT_DEFAULT)]
    limit: usize,
    /// From the beginning of the log on, instead of from its end backwards.
    #[arg(long)]
    oldest_first: bool,
}

impl Question {
    /// The question for a page of so many entries.
    fn asked(&self, limit: usize) -> Asked {
        Asked {
            since: self.since.clone(),
            until: self.until.clone(),
            subject: self.subject.clone(),
            session: self.session.clone(),
            resource: self.resource.clone(),
            kind: self.kind.clone(),
            verb: self.verb.clone(),
            address: self.address.clone(),
            text: self.text.clone(),
            before: self.before.clone(),
            after: self.after.clone(),
            limit: limit.clamp(1, LIMIT_MAX).to_string(),
            order: if self.oldest_first {
                "oldest"
            } else {
                "newest"
            }
            .to_owned(),
        }
    }
}

/// One page of the gateway's answer.
#[derive(Deserialize)]
struct Page {
    size: u64,
    indexed: u64,
    next: Option<u64>,
    #[serde(default)]
    damaged: bool,
    entries: Vec<Indexed>,
}

/// How an answer ended.
struct Told {
    shown: usize,
    size: u64,
    indexed: u64,
    next: Option<u64>,
    damaged: bool,
}

fn wrong(error: &QueryError) -> Failure {
    let option = error.field.replace("order", "oldest-first");
    Failure::hint(
        Exit::Usage,
        format_args!("--{option}: {}", error.problem),
        &error.hint,
    )
}

fn now() -> Timestamp {
    let micros = jiff::Timestamp::now().as_microsecond();
    Timestamp::from_micros(u64::try_from(micros).unwrap_or_default())
}

/// Carries out the command.
pub(crate) async fn search(search: &Search) -> Outcome {
    // Checked here as well, so that what is wrong is told in the words of the command line.
    let query = search
        .question
        .asked(search.question.limit)
        .check(now())
        .map_err(|error| wrong(&error))?;
    let told = match &search.dir {
        None => remote(search).await?,
        Some(dir) if search.scan => scanned(search, dir, query)?,
        Some(dir) => local(search, dir, query)?,
    };
    say_how(search, &told);
    Ok(())
}

fn say_how(search: &Search, told: &Told) {
    if told.damaged {
        say::note(
            "The index pointed at entries that the log does not hold so. They are left out, and the index is made anew.",
        );
    }
    if told.indexed < told.size && !search.scan {
        say::note(format_args!(
            "The index holds {} of {} entries; the others were read in the log itself.",
            told.indexed, told.size
        ));
    }
    match told.next {
        Some(next) => {
            let option = if search.question.oldest_first {
                "after"
            } else {
                "before"
            };
            say::note(format_args!(
                "There may be more: go on with --{option} {next}"
            ));
        }
        None if told.shown == 0 && search.scan => {
            say::note(format_args!(
                "None of the log's {} entries fits.",
                told.size
            ));
        }
        None if told.shown == 0 => {
            say::note("No entry was found. To be sure that there is none, use --dir DIR --scan.");
        }
        None => {}
    }
}

/// Asks a gateway, page by page.
async fn remote(search: &Search) -> Outcome<Told> {
    let client = Client::signed_in(&Saved::load(&search.server)?)?;
    let mut shown = 0;
    let mut asked = search.question.asked(search.question.limit);
    loop {
        let page: Page = client.get(&address(&asked)?).await?;
        for entry in &page.entries {
            show(entry, search.json, true);
        }
        shown += page.entries.len();
        let enough = shown >= search.question.limit;
        match page.next {
            Some(next) if !enough => {
                move_on(&mut asked, next, search.question.limit - shown);
            }
            next => {
                return Ok(Told {
                    shown,
                    size: page.size,
                    indexed: page.indexed,
                    next,
                    damaged: page.damaged,
                });
            }
        }
    }
}

fn move_on(asked: &mut Asked, next: u64, left: usize) {
    let cursor = if asked.order == "oldest" {
        &mut asked.after
    } else {
        &mut asked.before
    };
    *cursor = next.to_string();
    asked.limit = left.clamp(1, LIMIT_MAX).to_string();
}

/// The address of a question. Empty fields are left out.
fn address(asked: &Asked) -> Outcome<String> {
    let fields = serde_json::to_value(asked).doing("cannot write the question")?;
    let mut url = Url::parse("https://gateway/").doing("cannot write an address")?;
    {
        let mut pairs = url.query_pairs_mut();
        for (name, value) in fields.as_object().into_iter().flatten() {
            pairs.append_pair(name, value.as_str().unwrap_or_default());
        }
    }
    Ok(format!(
        "api/v1/log/search?{}",
        url.query().unwrap_or_default()
    ))
}

fn cache() -> Outcome<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(home)
        .map(|base| base.join("curfew/search"))
        .ok_or_else(|| {
            let text = "neither XDG_CACHE_HOME nor HOME is set";
            Failure::hint(
                Exit::Usage,
                text,
                "say where the index is kept with --index DIR",
            )
        })
}

/// Searches a log on this machine through an index, which is brought up to date first.
fn local(search: &Search, dir: &Path, mut query: Query) -> Outcome<Told> {
    let index = match &search.index {
        Some(index) => index.clone(),
        None => cache()?.join(folder_name(dir).doing(dir.display())?),
    };
    let (searcher, filling) = match Indexer::open(dir, &index, false) {
        Ok(mut indexer) => {
            let mut bar = Bar::new("indexed");
            indexer
                .catch_up(|done, all| bar.show(done, all))
                .doing("the log cannot be indexed")?;
            bar.end();
            (indexer.searcher(), Some(indexer))
        }
        Err(IndexError::Busy(_)) => {
            let searcher = Searcher::with_index_of_another(dir, &index);
            (searcher.doing(dir.display())?, None)
        }
        Err(error @ IndexError::Log(_)) => {
            let hint = "name the folder that holds `segments`, such as DATA/ledger";
            return Err(Failure::hint(Exit::Usage, error, hint));
        }
        Err(error) => return Err(Failure::failed(error)),
    };
    let bounds = Bounds {
        size: None,
        time: LOOK,
        bytes: PAGE_BYTES_MAX,
    };
    let (limit, mut shown, mut damaged) = (search.question.limit, 0, false);
    loop {
        query.limit = limit.saturating_sub(shown).clamp(1, LIMIT_MAX);
        let answer = searcher.search(&query, &bounds).doing(dir.display())?;
        shown += show_all(&answer, search.json)?;
        damaged |= answer.damaged;
        match answer.next {
            Some(next) if shown < limit => match query.order {
                Order::Newest => query.before = Some(next),
                Order::Oldest => query.after = Some(next),
            },
            next => {
                if let (true, Some(indexer)) = (damaged, filling) {
                    indexer.discard().doing("the index cannot be removed")?;
                }
                return Ok(Told {
                    shown,
                    size: answer.size,
                    indexed: answer.indexed,
                    next,
                    damaged,
                });
            }
        }
    }
}

/// Reads a whole log on this machine.
fn scanned(search: &Search, dir: &Path, mut query: Query) -> Outcome<Told> {
    query.limit = search.question.limit;
    let mut bar = Bar::new("read");
    let answer = scan(dir, &query, |done, all| bar.show(done, all)).doing(dir.display())?;
    bar.end();
    if answer.unreadable > 0 {
        say::note(format_args!(
            "{} entries are of a kind that this program does not know and were left out.",
            answer.unreadable
        ));
    }
    Ok(Told {
        shown: show_all(&answer, search.json)?,
        size: answer.size,
        indexed: answer.indexed,
        next: answer.next,
        damaged: false,
    })
}

fn show_all(answer: &Answer, json: bool) -> Outcome<usize> {
    for hit in &answer.hits {
        let text = String::from_utf8_lossy(&hit.bytes).into_owned();
        let entry = Indexed {
            index: hit.index,
            subject: hit.subject.as_ref().map(ToString::to_string),
            entry: RawValue::from_string(text).doing("an entry is no JSON")?,
        };
        show(&entry, json, true);
    }
    Ok(answer.hits.len())
}

/// How far long work has come, on one line beside the answer.
struct Bar {
    word: &'static str,
    shown: bool,
}

impl Bar {
    fn new(word: &'static str) -> Self {
        Self { word, shown: false }
    }

    fn show(&mut self, done: u64, all: u64) {
        if say::notes_to_terminal() && (self.shown || done < all) {
            let percent = done.saturating_mul(100) / all.max(1);
            say::progress(format_args!(
                "{percent:>3} % {}: {done} of {all} entries",
                self.word
            ));
            self.shown = true;
        }
    }

    fn end(&self) {
        if self.shown {
            say::note("");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_sent_as_it_was_asked() {
        let asked = Asked {
            text: "a b&c".into(),
            since: "2h".into(),
            order: "newest".into(),
            ..Asked::default()
        };
        let sent = address(&asked).unwrap();
        let (path, query) = sent.split_once('?').unwrap();
        let mut pairs: Vec<&str> = query.split('&').collect();
        pairs.sort_unstable();
        assert_eq!(path, "api/v1/log/search");
        assert_eq!(pairs, ["order=newest", "since=2h", "text=a+b%26c"]);
        let mut next = asked.clone();
        move_on(&mut next, 7, 5_000);
        assert_eq!((next.before.as_str(), next.limit.as_str()), ("7", "1000"));
        next.order = "oldest".into();
        move_on(&mut next, 9, 3);
        assert_eq!((next.after.as_str(), next.limit.as_str()), ("9", "3"));
    }
}
