//! The formats by name, and the writer that turns records into one of them.

use std::io::{self, Write};
use std::str::FromStr;

use curfew_entry::visible;
use flate2::Compression;
use flate2::write::GzEncoder;
use parquet::errors::ParquetError;

use crate::columnar::Columnar;
use crate::lines::{cef, cloudevent, columns, syslog};
use crate::record::{Record, Source};
use crate::{ocsf, otlp};

/// A format of somebody else's system.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// OCSF 1.8.0, one JSON object a line.
    Ocsf,
    /// ArcSight CEF:0, one event a line.
    Cef,
    /// RFC 5424, one message a line.
    Syslog,
    /// CloudEvents 1.0, one JSON object a line.
    CloudEvents,
    /// OTLP logs, one request in JSON a line.
    Otlp,
    /// CSV with a head (RFC 4180).
    Csv,
    /// Parquet.
    Parquet,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Ocsf,
        Self::Cef,
        Self::Syslog,
        Self::CloudEvents,
        Self::Otlp,
        Self::Csv,
        Self::Parquet,
    ];

    /// The name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ocsf => "ocsf",
            Self::Cef => "cef",
            Self::Syslog => "syslog",
            Self::CloudEvents => "cloudevents",
            Self::Otlp => "otlp",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }

    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Ocsf | Self::CloudEvents | Self::Otlp => "application/x-ndjson",
            Self::Cef | Self::Syslog => "text/plain; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// Whether packing it makes it smaller: Parquet is packed already, column by column.
    pub const fn is_worth_packing(self) -> bool {
        !matches!(self, Self::Parquet)
    }
}

/// How what is written is packed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Packing {
    /// Not at all.
    #[default]
    Plain,
    /// gzip (RFC 1952), one member.
    Gzip,
}

/// Where the bytes of a format go.
enum Sink<W: Write> {
    Plain(W),
    Gzip(Box<GzEncoder<W>>),
}

impl<W: Write> Sink<W> {
    fn new(packing: Packing, out: W) -> Self {
        match packing {
            Packing::Plain => Self::Plain(out),
            // Level 6 packs entries to an eighth; 9 takes twice as long for some per cent.
            Packing::Gzip => Self::Gzip(Box::new(GzEncoder::new(out, Compression::default()))),
        }
    }

    /// Writes what ends it.
    fn finish(self) -> io::Result<()> {
        let mut out = match self {
            Self::Plain(out) => out,
            Self::Gzip(packed) => packed.finish()?,
        };
        out.flush()
    }
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Gzip(packed) => packed.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Gzip(packed) => packed.flush(),
        }
    }
}

impl FromStr for Format {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|format| format.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is no format; there are ocsf, cef, syslog, cloudevents, otlp, csv and parquet"))
    }
}

/// Why nothing more was written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file or pipe.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Parquet; its own errors are those of the file.
    #[error("parquet: {0}")]
    Parquet(#[from] ParquetError),
    /// CSV; its own errors are those of the file.
    #[error("csv: {0}")]
    Csv(#[from] csv::Error),
    /// A value that is no JSON.
    #[error("json: {0}")]
    Json(#[from] serde_json::Error),
}

/// Writes records in one format.
pub struct Exporter<W: Write + Send> {
    source: Source,
    inner: Inner<W>,
}

enum Inner<W: Write + Send> {
    Lines(Format, Sink<W>),
    Otlp(Vec<Record>, usize, Sink<W>),
    Csv(Box<csv::Writer<Sink<W>>>, bool),
    Parquet(Box<Columnar<Sink<W>>>),
}

impl<W: Write + Send> Exporter<W> {
    /// A writer of this format.
    ///
    /// # Errors
    /// When the head cannot be written.
    pub fn new(
        format: Format,
        packing: Packing,
        source: Source,
        out: W,
    ) -> Result<Self, WriteError> {
        let out = Sink::new(packing, out);
        let inner = match format {
            Format::Ocsf | Format::Cef | Format::Syslog | Format::CloudEvents => {
                Inner::Lines(format, out)
            }
            Format::Otlp => Inner::Otlp(Vec::new(), 0, out),
            Format::Csv => Inner::Csv(Box::new(csv::Writer::from_writer(out)), false),
            Format::Parquet => Inner::Parquet(Box::new(Columnar::new(out, source.clone())?)),
        };
        Ok(Self { source, inner })
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, record: Record) -> Result<(), WriteError> {
        let source = &self.source;
        match &mut self.inner {
            Inner::Lines(format, out) => {
                let line = line(*format, &record, source)?;
                out.write_all(line.as_bytes())?;
                out.write_all(b"\n")?;
            }
            Inner::Otlp(waiting, bytes, out) => {
                *bytes += record.bytes.len();
                waiting.push(record);
                if waiting.len() >= otlp::RECORDS_MAX || *bytes >= otlp::BYTES_MAX {
                    otlp_line(waiting, source, out)?;
                    *bytes = 0;
                }
            }
            Inner::Csv(csv, headed) => {
                if !*headed {
                    csv.write_record(csv_names(&record))?;
                    *headed = true;
                }
                csv.write_record(csv_row(&record, source))?;
            }
            Inner::Parquet(columnar) => columnar.push(&record)?,
        }
        Ok(())
    }

    /// Writes what is still held back.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> Result<(), WriteError> {
        match self.inner {
            Inner::Lines(_, out) => out.finish()?,
            Inner::Otlp(mut waiting, _, mut out) => {
                otlp_line(&mut waiting, &self.source, &mut out)?;
                out.finish()?;
            }
            Inner::Csv(csv, _) => {
                let out = csv.into_inner().map_err(csv::IntoInnerError::into_error)?;
                out.finish()?;
            }
            Inner::Parquet(columnar) => columnar.finish()?.finish()?,
        }
        Ok(())
    }
}

fn line(format: Format, record: &Record, source: &Source) -> Result<String, WriteError> {
    Ok(match format {
        Format::Cef => cef(record, source),
        Format::Syslog => syslog(record, source),
        Format::CloudEvents => cloudevent(record, source)?,
        Format::Ocsf | Format::Otlp | Format::Csv | Format::Parquet => {
            serde_json::to_string(&ocsf::event(record, source))?
        }
    })
}

fn otlp_line<W: Write>(
    waiting: &mut Vec<Record>,
    source: &Source,
    out: &mut W,
) -> Result<(), WriteError> {
    if !waiting.is_empty() {
        serde_json::to_writer(&mut *out, &otlp::request(waiting, source))?;
        out.write_all(b"\n")?;
        waiting.clear();
    }
    Ok(())
}

fn csv_names(record: &Record) -> Vec<&'static str> {
    let mut names = vec![
        "log", "index", "leaf", "time", "kind", "severity", "message",
    ];
    names.extend(columns(record).into_iter().map(|(name, _)| name));
    names.push("entry");
    names
}

fn csv_row(record: &Record, source: &Source) -> Vec<String> {
    let facts = &record.facts;
    let mut row = vec![
        source.origin.clone(),
        record.index.to_string(),
        record.leaf_hex(),
        record.time.to_string(),
        facts.kind.to_owned(),
        facts.severity.as_str().to_owned(),
        record.message(),
    ];
    row.extend(columns(record).into_iter().map(|(_, value)| value));
    row.push(record.entry().to_owned());
    row.into_iter().map(|cell| inert(&cell)).collect()
}

/// A cell that no spreadsheet takes for a formula, and that stays on its line.
fn inert(text: &str) -> String {
    let text = visible(text);
    // After OWASP, CSV injection: these begin a formula; tab and line end are spelled out already.
    if text.starts_with(['=', '+', '-', '@']) {
        format!("'{text}")
    } else {
        text.into_owned()
    }
}
