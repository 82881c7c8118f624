//! `curfew log export`: a log in the format of somebody else's system, from files on this machine
//! or from a gateway.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use curfew_export::range::{self, Place};
use curfew_export::{Chunks, Format, LogReader, Opener, Packing, Source};
use curfew_gateway::data::DataDir;
use reqwest::Url;

use super::values;
use crate::client::{Client, Saved, ServerArgument};
use crate::configuration::{self, ConfigArgument};
use crate::failure::{Doing, Exit, Failure, Outcome};
use crate::say;

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Bytes gathered before they are written: one write in about a hundred lines.
const BUFFER_BYTES: usize = 128 * 1024;

/// What the exit codes mean here.
const EXPORT_EXIT_CODES: &str = "\
Exit codes:
  0  everything asked for was written
  1  the log could not be read, or the output not written, or it broke off
  2  the command line or the configuration is wrong
  3  --online: not signed in, or the session is over: run `curfew login`
  4  --online: the policy does not permit it

Every line carries the entry's index and its leaf hash, by which `curfew-verify` and any C2SP
client find the proof. What has no signed checkpoint yet is left out; --unsigned takes it too.

Examples:
  curfew log export --format ocsf --from 2026-11-24 --to 2026-11-25 --out day.ocsf
  curfew log export --format csv --online --gzip --out log.csv.gz
  curfew log export --format parquet --out log.parquet /var/lib/curfew/ledger";

/// Write entries in the format of another system. From files on this machine it is for the operator
/// of the host and needs no session; with --online it goes through a gateway, where the policy's
/// `log.read` permits it and the log records it.
#[derive(Args, Debug)]
#[command(after_help = EXPORT_EXIT_CODES)]
pub(crate) struct Export {
    /// ocsf, cef, syslog, cloudevents, otlp, csv or parquet. docs/export.md says what each holds.
    #[arg(long, short, value_name = "FORMAT")]
    format: Format,
    /// The first entry: an index, or a time such as 2026-11-24 or 2026-11-24T08:00:00Z.
    #[arg(long, value_name = "INDEX|TIME")]
    from: Option<Place>,
    /// Where to stop: this index or time is not written any more.
    #[arg(long, value_name = "INDEX|TIME")]
    to: Option<Place>,
    /// The file to write, which must not be there yet. Without it: standard output.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Pack it with gzip. Not for Parquet, which is packed already.
    #[arg(long)]
    gzip: bool,
    /// Give concealed values as they are, each held against its commitment; in the place of others
    /// `erased:…`, `missing:…` or `wrong:…`. From a gateway it takes the right `log.reveal` too.
    #[arg(long)]
    reveal: bool,
    /// Where these values are. Without it: `values` beside the log.
    #[arg(long, value_name = "DIR", requires = "reveal", conflicts_with_all = ["online", "server"])]
    values: Option<PathBuf>,
    /// Take entries too that no checkpoint has signed yet. Not from a gateway.
    #[arg(long, conflicts_with_all = ["online", "server"])]
    unsigned: bool,
    /// From the gateway that one is signed in to, through the session: permitted by policy, recorded,
    /// and cut when the session ends.
    #[arg(long, conflicts_with = "dir")]
    online: bool,
    /// The same from this gateway.
    #[arg(long, value_name = "URL", conflicts_with = "dir")]
    server: Option<String>,
    #[command(flatten)]
    config: ConfigArgument,
    /// The directory of the log. Without it: the one of the configuration.
    dir: Option<PathBuf>,
}

/// Carries it out.
pub(crate) async fn export(arguments: &Export) -> Outcome<ExitCode> {
    if arguments.gzip && !arguments.format.is_worth_packing() {
        return Err(Failure::hint(
            Exit::Usage,
            "Parquet is packed already",
            "leave --gzip out",
        ));
    }
    if arguments.online || arguments.server.is_some() {
        online(arguments).await?;
    } else {
        offline(arguments)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where it is written.
struct Target<'a> {
    /// The file under another name, and the name it gets once it is whole.
    file: Option<(tempfile::NamedTempFile, &'a Path)>,
    doing: String,
}

impl<'a> Target<'a> {
    fn new(arguments: &'a Export) -> Outcome<Self> {
        let Some(path) = arguments.out.as_deref() else {
            let binary = arguments.gzip || arguments.format == Format::Parquet;
            if binary && io::stdout().is_terminal() {
                return Err(Failure::hint(
                    Exit::Usage,
                    "this is not for a terminal",
                    "name a file with --out",
                ));
            }
            let doing = "cannot write".to_owned();
            return Ok(Self { file: None, doing });
        };
        if path.exists() {
            return Err(Failure::hint(
                Exit::Usage,
                format_args!("{} is there already", path.display()),
                "name another file, or move that one away; nothing is written over",
            ));
        }
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let doing = format!("cannot write {}", path.display());
        let file =
            tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).doing(&doing)?;
        Ok(Self {
            file: Some((file, path)),
            doing,
        })
    }

    fn writer(&self) -> Box<dyn Write + '_> {
        match &self.file {
            Some((file, _)) => Box::new(BufWriter::with_capacity(BUFFER_BYTES, file.as_file())),
            None => Box::new(BufWriter::with_capacity(BUFFER_BYTES, io::stdout())),
        }
    }

    /// Writes a piece. Gives whether anybody wants more.
    fn write(&self, out: &mut dyn Write, bytes: &[u8]) -> Outcome<bool> {
        match out.write_all(bytes) {
            // Whoever reads the pipe has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            written => written.map(|()| true).doing(&self.doing),
        }
    }

    /// It is whole: the file gets its name.
    fn keep(self) -> Outcome {
        let Some((file, path)) = self.file else {
            return Ok(());
        };
        file.as_file().sync_all().doing(&self.doing)?;
        file.persist_noclobber(path).doing(&self.doing)?;
        Ok(())
    }
}

/// Reads the files on this machine.
fn offline(arguments: &Export) -> Outcome {
    let dir = match &arguments.dir {
        Some(dir) => dir.clone(),
        None => DataDir::of(&configuration::config(&arguments.config.config)?).ledger(),
    };
    let reader = LogReader::open(&dir).doing(format_args!("cannot read {}", dir.display()))?;
    let signed = range::checkpoint(&dir).map_or(0, |checkpoint| checkpoint.size);
    let size = if arguments.unsigned {
        reader.size()
    } else {
        signed.min(reader.size())
    };
    let range = range::between(&reader, arguments.from, arguments.to, size);
    let range = range.doing("cannot read the log")?;
    let to = range.end;
    let source = source(&dir, &reader)?;
    let target = Target::new(arguments)?;
    let packing = if arguments.gzip {
        Packing::Gzip
    } else {
        Packing::Plain
    };
    let chunks = Chunks::new(
        &reader,
        range,
        arguments.format,
        packing,
        source,
        curfew_authority::Auditor::sessions_kept,
    );
    let mut chunks = chunks.doing(&target.doing)?;
    if arguments.reveal {
        chunks = chunks.revealing(opener(arguments)?);
    }
    let written = write_all(chunks, &target, to)?;
    target.keep()?;
    say::note(format_args!(
        "{written} entries as {}",
        arguments.format.as_str()
    ));
    let left = reader.size().saturating_sub(size);
    if left > 0 && arguments.to.is_none() {
        say::note(format_args!(
            "left out: {left} that no checkpoint has signed yet; --unsigned takes them too"
        ));
    }
    Ok(())
}

/// Shows concealed values out of the store on this machine.
fn opener(arguments: &Export) -> Outcome<Box<Opener>> {
    let (named, dir) = (arguments.values.as_deref(), arguments.dir.as_deref());
    let mut values = values::open(&values::beside(named, dir, &arguments.config)?)?;
    Ok(Box::new(move |index, concealed| {
        let kept = values.read(index, concealed);
        let kept = kept.map_err(|error| error.to_string())?;
        Ok(curfew_values::told(kept.fields, concealed))
    }))
}

fn source(dir: &Path, reader: &LogReader) -> Outcome<Source> {
    let origin = range::origin(dir, reader).ok_or_else(|| {
        Failure::hint(
            Exit::Failed,
            format_args!("{} says nowhere which log it is", dir.display()),
            "name the directory that holds `checkpoint` and `segments`",
        )
    })?;
    Ok(Source::of(&origin))
}

fn write_all(mut chunks: Chunks, target: &Target<'_>, to: u64) -> Outcome<u64> {
    let mut out = target.writer();
    let mut progress = Progress::new();
    while let Some(piece) = chunks.piece().doing("cannot export")? {
        if !target.write(&mut out, &piece)? {
            return Ok(chunks.written());
        }
        progress.at(|| format!("{} of {to} entries", chunks.at()));
    }
    flush(&mut out, target)?;
    Ok(chunks.written())
}

fn flush(out: &mut dyn Write, target: &Target<'_>) -> Outcome {
    match out.flush() {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        flushed => flushed.doing(&target.doing),
    }
}

/// Asks a gateway, through the session of the stored sign-in.
async fn online(arguments: &Export) -> Outcome {
    let server = ServerArgument {
        server: arguments
            .server
            .clone()
            .or_else(|| std::env::var("CURFEW_SERVER").ok()),
    };
    let client = Client::signed_in(&Saved::load(&server)?)?;
    let target = Target::new(arguments)?;
    let mut response = client.stream(&address(arguments)?, arguments.gzip).await?;
    let header = |name| {
        let value = response.headers().get(name)?.to_str().ok()?;
        value.parse::<u64>().ok()
    };
    let range = header("curfew-from").zip(header("curfew-to"));
    let packed = response.headers().contains_key("content-encoding");
    let Some((from, to)) = range.filter(|_| packed == arguments.gzip) else {
        return Err(Failure::failed("the answer is not what was asked for"));
    };
    {
        let mut out = target.writer();
        let (mut progress, mut bytes) = (Progress::new(), 0_u64);
        while let Some(piece) = next(&mut response, from).await? {
            if !target.write(&mut out, &piece)? {
                return Ok(());
            }
            bytes += u64::try_from(piece.len()).unwrap_or(0);
            progress.at(|| format!("{} MB", bytes / 1_000_000));
        }
        flush(&mut out, &target)?;
    }
    target.keep()?;
    say::note(format_args!(
        "{} entries as {}, from index {from} up to {to}",
        to - from,
        arguments.format.as_str()
    ));
    Ok(())
}

async fn next(response: &mut reqwest::Response, from: u64) -> Outcome<Option<Vec<u8>>> {
    let piece = response.chunk().await.map_err(|error| {
        let why = crate::client::cause(&error);
        Failure::hint(
            Exit::Failed,
            format_args!("the answer broke off: {why}"),
            format_args!(
                "the session may have ended, see `curfew whoami`; what came is not the whole, \
                 which begins at --from {from}"
            ),
        )
    })?;
    Ok(piece.map(Vec::from))
}

fn address(arguments: &Export) -> Outcome<String> {
    let mut url = Url::parse("https://gateway/").doing("cannot write an address")?;
    {
        let mut pairs = url.query_pairs_mut();
        pairs.append_pair("format", arguments.format.as_str());
        for (name, place) in [("from", arguments.from), ("to", arguments.to)] {
            if let Some(place) = place {
                pairs.append_pair(name, &place.to_string());
            }
        }
        if arguments.reveal {
            pairs.append_pair("reveal", "true");
        }
    }
    let query = url.query().unwrap_or_default();
    Ok(format!("api/v1/log/export?{query}"))
}

/// Tells how far it is, on a terminal.
struct Progress {
    told: Instant,
    shown: bool,
}

impl Progress {
    fn new() -> Self {
        let shown = say::notes_to_terminal();
        let told = Instant::now();
        Self { told, shown }
    }

    fn at(&mut self, how_far: impl FnOnce() -> String) {
        if self.shown && self.told.elapsed() >= PROGRESS_EVERY {
            self.told = Instant::now();
            say::note(how_far());
        }
    }
}
