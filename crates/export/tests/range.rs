//! Indexes and times on a log that was really written.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::io::Read;
use std::sync::Arc;

use curfew_export::range::{Place, between, checkpoint, first_at, origin};
use curfew_export::{Chunks, Exporter, Format, LogReader, Packing, Source, Stream};
use curfew_ledger::{LogKey, Observer, Options, RealDisk, WriteError, Writer};
use flate2::read::MultiGzDecoder;

struct Silent;

impl Observer for Silent {
    fn durable(&self, _size: u64) {}
    fn failed(&self, _size: u64, _error: &WriteError) {}
}

#[test]
fn times_and_indexes_find_their_entries() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, guard) = (folder.path().join("ledger"), folder.path().join("guard"));
    let key = LogKey::from_seed("log.example/curfew", &[7; 32]).unwrap();
    let options = Options::new(&dir, guard, key);
    let (writer, _) = Writer::create(options, Arc::new(RealDisk), Arc::new(Silent)).unwrap();
    let entries = include_str!("../../entry/tests/golden/entries.jsonl");
    for line in entries.lines() {
        writer.append(line).unwrap();
    }
    writer.close().unwrap();
    let reader = LogReader::open(&dir).unwrap();
    let size = reader.size();
    assert_eq!(checkpoint(&dir).unwrap().size, size);
    assert_eq!(origin(&dir, &reader).unwrap(), "log.example/curfew");
    let at = |text: &str| first_at(&reader, text.parse::<Place>().unwrap(), size).unwrap();
    assert_eq!(at("5"), 5);
    assert_eq!(at("999999"), size);
    assert_eq!(at("2026-11-23"), 0);
    assert_eq!(at("2026-11-23T16:40:00.000105Z"), 5);
    assert_eq!(at("2026-11-24"), size);
    let from = |from: &str, to: Option<&str>| {
        let place = |text: &str| text.parse::<Place>().unwrap();
        between(&reader, Some(place(from)), to.map(place), size).unwrap()
    };
    assert_eq!(between(&reader, None, None, size).unwrap(), 0..size);
    assert_eq!(between(&reader, None, None, 7).unwrap(), 0..7);
    assert_eq!(from("3", Some("9")), 3..9);
    assert_eq!(from("9", Some("3")), 9..9);
    assert_eq!(from("2026-11-24", None), size..size);
    assert!("yesterday".parse::<Place>().is_err());
}

fn all_at_once(reader: &LogReader, range: std::ops::Range<u64>, format: Format) -> Vec<u8> {
    let (mut stream, mut out) = (Stream::new(), Vec::new());
    let mut exporter = Exporter::new(format, Packing::Plain, source(), &mut out).unwrap();
    for entry in reader.range(0..range.end) {
        let (index, bytes) = entry.unwrap();
        let record = stream.record(index, bytes);
        if range.contains(&index) {
            exporter.push(record).unwrap();
        }
    }
    exporter.finish().unwrap();
    out
}

fn source() -> Source {
    Source::of("log.example/curfew")
}

#[test]
fn an_export_in_pieces_is_the_same_and_no_piece_is_long() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, guard) = (folder.path().join("ledger"), folder.path().join("guard"));
    let key = LogKey::from_seed("log.example/curfew", &[7; 32]).unwrap();
    let options = Options::new(&dir, guard, key);
    let (writer, _) = Writer::create(options, Arc::new(RealDisk), Arc::new(Silent)).unwrap();
    let entries = include_str!("../../entry/tests/golden/entries.jsonl");
    for line in entries.lines().cycle().take(5_000) {
        writer.append(line).unwrap();
    }
    writer.close().unwrap();
    let reader = LogReader::open(&dir).unwrap();
    for (format, packing) in [
        (Format::Ocsf, Packing::Plain),
        (Format::Csv, Packing::Plain),
        (Format::Otlp, Packing::Gzip),
        (Format::Cef, Packing::Gzip),
        (Format::Parquet, Packing::Plain),
    ] {
        for range in [0..5_000, 4_500..4_501, 70..70] {
            let asked = (range.clone(), format, packing);
            let mut chunks = Chunks::new(
                &reader,
                range.clone(),
                format,
                packing,
                source(),
                curfew_authority::Auditor::sessions_kept,
            )
            .unwrap();
            let (mut whole, mut longest) = (Vec::new(), 0);
            while let Some(piece) = chunks.piece().unwrap() {
                longest = longest.max(piece.len());
                whole.extend(piece);
            }
            assert!(chunks.piece().unwrap().is_none(), "its end lasts");
            assert_eq!(chunks.written(), range.end - range.start, "{asked:?}");
            if packing == Packing::Gzip {
                let mut plain = Vec::new();
                MultiGzDecoder::new(&*whole)
                    .read_to_end(&mut plain)
                    .unwrap();
                whole = plain;
            }
            let wanted = all_at_once(&reader, range, format);
            assert!(whole == wanted, "{asked:?}");
            // A line of OTLP is up to 256 records.
            let bound = if format == Format::Parquet {
                usize::MAX
            } else {
                1 << 20
            };
            assert!(longest < bound, "{longest} {asked:?}");
        }
    }
}
