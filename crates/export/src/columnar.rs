//! Parquet, written column by column. Memory holds one row group.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::lines::columns;
use crate::record::{Record, Source};

/// Rows of a row group: 16,384 × about 1 kB are 16 MB.
const ROWS_MAX: usize = 16_384;

/// Bytes of entries in a row group, should these be long: their columns take up to three times
/// that. Usual rows reach their number before.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// The texts, in the order of the schema: those of every record, then the shared columns.
fn texts(record: &Record, source: &Source) -> Vec<String> {
    let facts = &record.facts;
    let mut texts = vec![
        source.origin.clone(),
        record.leaf_hex(),
        facts.kind.to_owned(),
        facts.severity.as_str().to_owned(),
        record.message(),
    ];
    texts.extend(columns(record).into_iter().map(|(_, value)| value));
    texts.push(record.entry().to_owned());
    texts
}

/// Their names.
fn names(record: &Record) -> Vec<&'static str> {
    let mut names = vec!["log", "leaf", "kind", "severity", "message"];
    names.extend(columns(record).into_iter().map(|(name, _)| name));
    names.push("entry");
    names
}

/// Writes records as rows.
pub(crate) struct Columnar<W: Write + Send> {
    /// Made with the first row.
    writer: SerializedFileWriter<W>,
    source: Source,
    indexes: Vec<i64>,
    times: Vec<i64>,
    texts: Vec<Vec<ByteArray>>,
    bytes: usize,
}

impl<W: Write + Send> Columnar<W> {
    pub(crate) fn new(out: W, source: Source) -> Result<Self, ParquetError> {
        let pattern = crate::record::Stream::new().record(0, Vec::new());
        let names = names(&pattern);
        let mut schema = String::from(
            "message curfew { required int64 index; required int64 time (TIMESTAMP(MICROS,true));",
        );
        for name in &names {
            schema.push_str(&format!(" required binary {name} (UTF8);"));
        }
        schema.push('}');
        let schema = Arc::new(parse_message_type(&schema)?);
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(format!("curfew {}", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            writer: SerializedFileWriter::new(out, schema, Arc::new(properties))?,
            source,
            indexes: Vec::new(),
            times: Vec::new(),
            texts: vec![Vec::new(); names.len()],
            bytes: 0,
        })
    }

    pub(crate) fn push(&mut self, record: &Record) -> Result<(), ParquetError> {
        // Indexes past 2^63 do not exist, nor moments past the year 9999.
        self.indexes
            .push(i64::try_from(record.index).unwrap_or(i64::MAX));
        let time = record.time.as_micros();
        self.times.push(i64::try_from(time).unwrap_or(i64::MAX));
        for (column, text) in self.texts.iter_mut().zip(texts(record, &self.source)) {
            column.push(ByteArray::from(text.into_bytes()));
        }
        self.bytes += record.bytes.len();
        if self.indexes.len() >= ROWS_MAX || self.bytes >= BYTES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ParquetError> {
        if self.indexes.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for numbers in [&mut self.indexes, &mut self.times] {
            if let Some(mut column) = group.next_column()? {
                column
                    .typed::<Int64Type>()
                    .write_batch(numbers, None, None)?;
                column.close()?;
            }
            numbers.clear();
        }
        for texts in &mut self.texts {
            if let Some(mut column) = group.next_column()? {
                column
                    .typed::<ByteArrayType>()
                    .write_batch(texts, None, None)?;
                column.close()?;
            }
            texts.clear();
        }
        self.bytes = 0;
        group.close()?;
        Ok(())
    }

    /// Writes what is held, and the footer without which it is no Parquet.
    pub(crate) fn finish(mut self) -> Result<W, ParquetError> {
        self.flush()?;
        self.writer.into_inner()
    }
}
