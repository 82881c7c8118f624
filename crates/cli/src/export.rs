//! `curfew log export`: a log on this machine in the format of somebody else's system.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use curfew_export::range::{self, Place};
use curfew_export::{Exporter, Format, LogReader, Record, Source, Stream, WriteError};
use curfew_gateway::data::DataDir;

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
  1  the log could not be read, or the output not written
  2  the command line or the configuration is wrong

Every line carries the entry's index and its leaf hash, by which `curfew-verify` and any C2SP
client find the proof. What has no signed checkpoint yet is left out; --unsigned takes it too.";

/// Write entries in the format of another system. It reads the files on this machine, so it is for
/// the operator of the host, and needs no session.
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
    /// Take entries too that no checkpoint has signed yet.
    #[arg(long)]
    unsigned: bool,
    #[command(flatten)]
    config: ConfigArgument,
    /// The directory of the log. Without it: the one of the configuration.
    dir: Option<PathBuf>,
}

/// Carries it out.
pub(crate) fn export(arguments: &Export) -> Outcome<ExitCode> {
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
    let end = |place: Option<Place>, otherwise: u64| match place {
        Some(place) => range::first_at(&reader, place, size).doing("cannot read the log"),
        None => Ok(otherwise),
    };
    let (from, to) = (end(arguments.from, 0)?, end(arguments.to, size)?);
    let source = source(&dir, &reader)?;
    let work = Work {
        reader: &reader,
        from,
        to: to.max(from),
    };
    let written = match &arguments.out {
        Some(path) => work.to_file(arguments.format, source, path),
        None => work.to_stdout(arguments.format, source),
    }?;
    let left = reader.size().saturating_sub(size);
    say::note(format_args!(
        "{written} entries as {}",
        arguments.format.as_str()
    ));
    if left > 0 && arguments.to.is_none() {
        say::note(format_args!(
            "left out: {left} that no checkpoint has signed yet; --unsigned takes them too"
        ));
    }
    Ok(ExitCode::SUCCESS)
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

struct Work<'a> {
    reader: &'a LogReader,
    from: u64,
    to: u64,
}

impl Work<'_> {
    /// A file appears under its name once it is whole.
    fn to_file(&self, format: Format, source: Source, path: &Path) -> Outcome<u64> {
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
        let out = BufWriter::with_capacity(BUFFER_BYTES, file.as_file());
        let written = self.write(format, source, out, &doing)?;
        file.as_file().sync_all().doing(&doing)?;
        let kept: Result<File, _> = file.persist_noclobber(path);
        kept.doing(&doing)?;
        Ok(written)
    }

    fn to_stdout(&self, format: Format, source: Source) -> Outcome<u64> {
        let out = std::io::stdout();
        if format == Format::Parquet && out.is_terminal() {
            return Err(Failure::hint(
                Exit::Usage,
                "Parquet is not for a terminal",
                "name a file with --out",
            ));
        }
        let out = BufWriter::with_capacity(BUFFER_BYTES, out);
        self.write(format, source, out, "cannot write")
    }

    fn write<W: Write + Send>(
        &self,
        format: Format,
        source: Source,
        out: W,
        doing: &str,
    ) -> Outcome<u64> {
        let mut stream = Stream::new();
        let mut progress = Progress::new(self.to);
        // Whose the sessions are is said at their start, which may lie before the range.
        for entry in self.reader.range(0..self.from) {
            let (index, bytes) = entry.doing("cannot read the log")?;
            stream.learn(index, &bytes);
            progress.at(index);
        }
        let mut exporter = Exporter::new(format, source, out).doing(doing)?;
        let mut push = |record: Record| match exporter.push(record) {
            // Whoever reads the pipe has seen enough.
            Err(WriteError::Io(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                Ok(false)
            }
            pushed => pushed.map(|()| true).doing(doing),
        };
        let mut written = 0;
        for entry in self.reader.range(self.from..self.to) {
            let (index, bytes) = entry.doing("cannot read the log")?;
            if !push(stream.record(index, bytes))? {
                return Ok(written);
            }
            written += 1;
            progress.at(index);
        }
        exporter.finish().doing(doing)?;
        Ok(written)
    }
}

/// Tells how far it is, on a terminal.
struct Progress {
    end: u64,
    told: Instant,
    shown: bool,
}

impl Progress {
    fn new(end: u64) -> Self {
        let shown = std::io::stderr().is_terminal();
        let told = Instant::now();
        Self { end, told, shown }
    }

    fn at(&mut self, index: u64) {
        // The clock is asked once in 4,096 entries.
        if self.shown && index.is_multiple_of(4_096) && self.told.elapsed() >= PROGRESS_EVERY {
            self.told = Instant::now();
            say::note(format_args!("{index} of {} entries", self.end));
        }
    }
}
