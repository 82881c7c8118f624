//! Diagnostics of the program itself, on standard error: what clients sent cannot move the terminal or
//! feign a field, and no place in the code fills the disk with lines.

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use curfew_entry::{quoted, visible};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{FormatFields, Writer};
use tracing_subscriber::fmt::{self as formats, MakeWriter};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::say;

/// Lines that one place in the code may write within a [`MINUTE`]. 60 of 200 bytes are 17 MB a day for
/// a place that never stops.
const LINES_MAX: u32 = 60;

/// How often it is said how many lines were left out.
const MINUTE: Duration = Duration::from_secs(60);

/// Starts them. `CURFEW_LOG` says how much, `CURFEW_LOG_JSON=1` in which form. Why a certificate is not
/// trusted is told by whoever wanted to connect.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_env("CURFEW_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,curfew=info,rustls_platform_verifier=off"));
    let budget = Budget::default();
    budget.clone().keep_telling();
    let json = std::env::var_os("CURFEW_LOG_JSON").is_some_and(|on| on == "1");
    let layer = formats::layer()
        .with_ansi(say::errors_in_colour())
        // It would say so on standard error and panic where that fails too, as on a full disk.
        .log_internal_errors(false);
    let lines = if json {
        layer.json().with_writer(Harmless { json }).boxed()
    } else {
        layer
            .fmt_fields(Fields)
            .with_writer(Harmless { json })
            .boxed()
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(budget)
        .with(lines)
        .init();
}

/// How many lines each place in the code has written since it was last told, and how many it has not.
#[derive(Clone, Default)]
struct Budget(Arc<Mutex<HashMap<Identifier, Lines>>>);

struct Lines {
    place: &'static Metadata<'static>,
    written: u32,
    left_out: u64,
}

impl Budget {
    fn lines(&self) -> MutexGuard<'_, HashMap<Identifier, Lines>> {
        // A panic while holding the map leaves it whole: each change is one number.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says every minute what was left out, for as long as the program runs.
    fn keep_telling(self) {
        let tell = move || {
            loop {
                std::thread::sleep(MINUTE);
                self.tell();
            }
        };
        let thread = std::thread::Builder::new().name("curfew-lines".to_owned());
        if let Err(error) = thread.spawn(tell) {
            say::note(format_args!("lines left out will not be counted: {error}"));
        }
    }

    fn tell(&self) {
        // Let go of before anything is said, which comes by here as well.
        let lines = std::mem::take(&mut *self.lines());
        for Lines {
            place, left_out, ..
        } in lines.into_values()
        {
            if left_out > 0 {
                let (target, line) = (place.target(), place.line().unwrap_or_default());
                tracing::warn!(left_out, target, line, "lines like others were left out");
            }
        }
    }
}

impl<S: Subscriber> Layer<S> for Budget {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let place = event.metadata();
        // Whoever asks for more than usual wants all of it.
        if *place.level() > Level::INFO {
            return true;
        }
        let mut all = self.lines();
        let lines = all.entry(place.callsite()).or_insert(Lines {
            place,
            written: 0,
            left_out: 0,
        });
        if lines.written < LINES_MAX {
            lines.written += 1;
            return true;
        }
        lines.left_out += 1;
        false
    }
}

/// Writes fields as `name=value`, values in quotation marks where they could be taken for more.
struct Fields;

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut pairs = Pairs {
            writer,
            first: true,
            written: Ok(()),
        };
        fields.record(&mut pairs);
        pairs.written
    }
}

struct Pairs<'writer> {
    writer: Writer<'writer>,
    first: bool,
    written: fmt::Result,
}

impl Pairs<'_> {
    fn put(&mut self, name: &str, text: &str) {
        // What the crate `log` says of itself.
        if self.written.is_err() || name.starts_with("log.") {
            return;
        }
        let space = if self.first { "" } else { " " };
        self.first = false;
        self.written = if name == "message" {
            write!(self.writer, "{space}{}", visible(text))
        } else {
            write!(self.writer, "{space}{name}={}", quoted(text))
        };
    }
}

impl Visit for Pairs<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field.name(), &value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field.name(), &format!("{value:?}"));
    }
}

/// Standard error, to which nothing goes that moves the terminal.
#[derive(Clone, Copy)]
struct Harmless {
    json: bool,
}

impl<'a> MakeWriter<'a> for Harmless {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

impl Write for Harmless {
    /// Each line comes in one piece.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let shown = if self.json {
            let line = text.trim_end_matches('\n');
            format!("{}\n", visible(line))
        } else {
            say::harmless(&text).into_owned()
        };
        io::stderr().write_all(shown.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written, in the form that people read.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Kept {
        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            text.lines().map(str::to_owned).collect()
        }
    }

    fn said(budget: &Budget, say: impl FnOnce()) -> Vec<String> {
        let kept = Kept::default();
        let writer = kept.clone();
        let lines = formats::layer()
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .fmt_fields(Fields)
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry()
            .with(budget.clone())
            .with(lines);
        tracing::subscriber::with_default(subscriber, say);
        kept.lines()
    }

    #[test]
    fn what_clients_sent_cannot_feign_a_field() {
        let lines = said(&Budget::default(), || {
            let error = "no such file subject=root\u{1b}[2J";
            tracing::warn!(%error, name = "a b", count = 3, ok = true, "went \u{202e}wrong");
        });
        assert_eq!(
            lines,
            [
                " WARN went \\u202ewrong error=\"no such file subject=root\\u001b[2J\" name=\"a b\" count=3 ok=true"
            ]
        );
    }

    #[test]
    fn a_place_that_never_stops_is_counted() {
        let budget = Budget::default();
        let lines = said(&budget, || {
            for n in 0..1_000 {
                tracing::error!(n, "again");
                tracing::debug!("as it was asked for");
            }
            tracing::error!("another place");
        });
        let of = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!((of("again"), of("another place")), (60, 1));
        assert_eq!(of("as it was asked for"), 1_000);
        let told = said(&budget, || budget.tell());
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("left_out=940"), "{told:?}");
        assert_eq!(said(&budget, || budget.tell()).len(), 0);
    }
}
