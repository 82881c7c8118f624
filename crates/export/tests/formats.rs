//! The formats, against files that were looked at, against readers that others wrote, and against
//! entries that try to break out of their line.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in a test a panic is the message"
)]

use std::path::Path;

use curfew_export::{Exporter, Format, Packing, Source, Stream};
use serde_json::{Value, json};

const ENTRIES: &str = include_str!("../../entry/tests/golden/entries.jsonl");
const SCHEMA: &str = include_str!("schema/ocsf-1.8.0.json");

/// Line ends, control characters, the delimiters of every format, formulas, and what turns text.
const HOSTILE: [&str; 6] = [
    "a\r\nb\n<13>1 - forged",
    "nul\0 bell\u{7} esc\u{1b}[2J del\u{7f} csi\u{9b}",
    r#"pipe| equal= quote" bracket] back\ apostrophe' comma,"#,
    "\u{202e}turned\u{2066} \u{2028}line \u{feff}",
    "=cmd|' /C calc'!A0",
    "ünï 日本 🦀 {\"json\":1}",
];

fn source() -> Source {
    Source {
        origin: "log.example/curfew".to_owned(),
        host: "log.example".to_owned(),
    }
}

fn exported(format: Format, entries: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut exporter = Exporter::new(format, Packing::Plain, source(), &mut out).unwrap();
    let mut stream = Stream::new();
    for (index, entry) in (0..).zip(entries) {
        let record = stream.record(index, entry.clone().into_bytes());
        exporter.push(record).unwrap();
    }
    exporter.finish().unwrap();
    out
}

fn golden_entries() -> Vec<String> {
    ENTRIES.lines().map(str::to_owned).collect()
}

/// A session's start, then each hostile text in every field that takes free text.
fn hostile_entries() -> Vec<String> {
    let started = ENTRIES.lines().find(|l| l.contains("session.started"));
    let mut entries = vec![started.unwrap().to_owned()];
    for text in HOSTILE {
        let text = serde_json::to_string(text).unwrap();
        let head = r#"{"v":1,"time":"2026-11-23T16:40:00.000119Z","kind":"action.allowed","session":"s_00112233445566778899aabb""#;
        entries.push(format!(
            r#"{head},"verb":"web.read","resource":"shop","context":{{"address":"192.0.2.1","network":{text}}},"method":{text},"path":{text},"client":{text},"rules":["r"]}}"#
        ));
        entries.push(format!(
            r#"{head},"verb":"sql.write","resource":"shop","statement":{text},"fingerprint":{text},"client":{text},"rules":["r"]}}"#
        ));
        entries.push(format!(
            r#"{{"v":1,"time":"2026-11-23T16:40:00.000120Z","kind":"recording.failed","since":"2026-11-23T16:40:00.000002Z","cause":{text}}}"#
        ));
    }
    for entry in &entries {
        let read = curfew_entry::Entry::from_bytes(entry.as_bytes());
        assert!(read.is_ok(), "{read:?}: {entry}");
    }
    entries
}

fn all_entries() -> Vec<String> {
    let mut all = golden_entries();
    all.extend(hostile_entries());
    all.push("no entry at all".to_owned());
    all
}

fn lines(format: Format, entries: &[String]) -> Vec<String> {
    let text = String::from_utf8(exported(format, entries)).unwrap();
    assert!(text.ends_with('\n'));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_files_are_those_that_were_looked_at() {
    for format in Format::ALL {
        if format == Format::Parquet {
            continue;
        }
        let name = format!("tests/golden/entries.{}", format.as_str());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let found = String::from_utf8(exported(format, &golden_entries())).unwrap();
        match std::fs::read_to_string(&path) {
            Ok(wanted) => assert!(found == wanted, "{} differs:\n{found}", path.display()),
            Err(_) => {
                std::fs::write(&path, found).unwrap();
                panic!("{} was missing; look at it and keep it", path.display());
            }
        }
    }
}

#[test]
fn ocsf_passes_the_schema_of_ocsf() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let entries = all_entries();
    let lines = lines(Format::Ocsf, &entries);
    assert_eq!(lines.len(), entries.len());
    let mut classes = std::collections::BTreeSet::new();
    for line in lines {
        let event: Value = serde_json::from_str(&line).unwrap();
        let class = event["class_uid"].as_u64().unwrap();
        assert_eq!(event["category_uid"], class / 1_000);
        let activity = event["activity_id"].as_u64().unwrap();
        assert_eq!(event["type_uid"], class * 100 + activity);
        let mut of_class = schema["classes"][class.to_string()].clone();
        assert!(of_class.is_object(), "no schema for class {class}");
        of_class["$defs"] = schema["$defs"].clone();
        let validator = jsonschema::draft202012::new(&of_class).unwrap();
        let problems: Vec<String> = validator
            .iter_errors(&event)
            .map(|problem| format!("{} at {}", problem, problem.instance_path()))
            .collect();
        assert!(problems.is_empty(), "{problems:#?}\n{line}");
        // The schema would find a field that is not its own.
        let mut planted = event.clone();
        planted["invented"] = json!(1);
        assert!(!validator.is_valid(&planted));
        classes.insert(class);
    }
    assert!(classes.len() >= 10, "{classes:?}");
}

#[test]
fn every_record_leads_back_to_its_proof() {
    let entries = golden_entries();
    for format in [
        Format::Ocsf,
        Format::Cef,
        Format::Syslog,
        Format::CloudEvents,
    ] {
        for (index, (line, entry)) in lines(format, &entries).iter().zip(&entries).enumerate() {
            let leaf = curfew_ledger::merkle::leaf_hash(entry.as_bytes());
            let hex: String = leaf.0.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(line.contains(&hex), "{} {index}", format.as_str());
        }
    }
}

/// Nothing in the text ends a line, moves a cursor or turns direction.
fn tame(line: &str) -> bool {
    curfew_export::visible(line) == line
}

#[test]
fn hostile_text_stays_in_its_place() {
    let entries = hostile_entries();
    for format in [Format::Cef, Format::Syslog] {
        let lines = lines(format, &entries);
        assert_eq!(lines.len(), entries.len(), "{}", format.as_str());
        for line in lines {
            assert!(tame(&line), "{line}");
        }
    }
    // JSON spells control characters out by itself.
    for format in [Format::Ocsf, Format::CloudEvents] {
        let lines = lines(format, &entries);
        assert_eq!(lines.len(), entries.len(), "{}", format.as_str());
        for line in lines {
            assert!(serde_json::from_str::<Value>(&line).unwrap().is_object());
        }
    }
}

#[test]
fn a_syslog_parser_finds_the_fields_whole() {
    let entries = all_entries();
    for (index, line) in lines(Format::Syslog, &entries).iter().enumerate() {
        let message = syslog_loose::parse_message(line, syslog_loose::Variant::RFC5424);
        assert_eq!(
            message.facility,
            Some(syslog_loose::SyslogFacility::LOG_AUDIT)
        );
        assert_eq!(message.hostname, Some("log.example"));
        assert_eq!(message.structured_data.len(), 1, "{line}");
        let data = &message.structured_data[0];
        assert_eq!(data.id, "curfew@32473");
        let params: std::collections::BTreeMap<&str, String> = data
            .params()
            .map(|(name, value)| (*name, value.to_string()))
            .collect();
        assert_eq!(params["index"], index.to_string());
        for field in ["path", "statement", "client"] {
            let Ok(entry) = serde_json::from_str::<Value>(&entries[index]) else {
                continue;
            };
            let Some(text) = entry[field].as_str() else {
                continue;
            };
            assert_eq!(params[field], curfew_export::visible(text), "{line}");
        }
    }
}

#[test]
fn cef_keeps_header_and_extension_apart() {
    for line in lines(Format::Cef, &all_entries()) {
        let mut bars = 0;
        let mut escaped = false;
        let mut extension = String::new();
        for c in line.chars() {
            if bars == 7 {
                extension.push(c);
            } else if c == '|' && !escaped {
                bars += 1;
            }
            escaped = c == '\\' && !escaped;
        }
        assert_eq!(bars, 7, "{line}");
        // Every unescaped equals sign follows a name.
        let mut word = String::new();
        let mut before = ' ';
        for c in extension.chars() {
            match c {
                '=' if before != '\\' => {
                    assert!(
                        word.chars().all(|c| c.is_ascii_alphanumeric()),
                        "{word} in {line}"
                    );
                    assert!(!word.is_empty(), "{line}");
                }
                ' ' => word.clear(),
                c => word.push(c),
            }
            before = c;
        }
    }
}

#[test]
fn cloudevents_hold_the_entry_byte_for_byte() {
    let entries = golden_entries();
    for (line, entry) in lines(Format::CloudEvents, &entries).iter().zip(&entries) {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["specversion"], "1.0");
        for name in ["id", "source", "type"] {
            assert!(!event[name].as_str().unwrap().is_empty());
        }
        for name in event.as_object().unwrap().keys() {
            let fits = name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            assert!(fits && name.len() <= 20, "{name}");
        }
        assert!(line.ends_with(&format!(",\"data\":{entry}}}")), "{line}");
    }
}

#[test]
fn otlp_is_read_back_by_the_types_of_opentelemetry() {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue;
    let mut entries = Vec::new();
    while entries.len() < 600 {
        entries.extend(all_entries());
    }
    let mut at = 0;
    for line in lines(Format::Otlp, &entries) {
        let request: ExportLogsServiceRequest = serde_json::from_str(&line).unwrap();
        for record in &request.resource_logs[0].scope_logs[0].log_records {
            let body = record.body.clone().unwrap().value.unwrap();
            assert_eq!(body, StringValue(entries[at].clone()));
            assert!(record.event_name.starts_with("curfew."));
            at += 1;
        }
    }
    assert_eq!(at, entries.len());
}

#[test]
fn csv_is_read_back_and_holds_no_formula() {
    let entries = all_entries();
    let bytes = exported(Format::Csv, &entries);
    let mut reader = csv::Reader::from_reader(bytes.as_slice());
    let head = reader.headers().unwrap().clone();
    let column = |name| head.iter().position(|found| found == name).unwrap();
    let (index, entry) = (column("index"), column("entry"));
    let mut rows = 0;
    for (row, wanted) in reader.records().map(Result::unwrap).zip(&entries) {
        assert_eq!(row[index], rows.to_string());
        assert_eq!(&row[entry], curfew_export::visible(wanted));
        for cell in &row {
            assert!(!cell.starts_with(['=', '+', '-', '@']), "{cell}");
            assert!(tame(cell), "{cell}");
        }
        rows += 1;
    }
    assert_eq!(rows, entries.len());
}

#[test]
fn parquet_is_read_back_across_row_groups() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;
    let mut entries = Vec::new();
    while entries.len() < 17_000 {
        entries.extend(all_entries());
    }
    let bytes = exported(Format::Parquet, &entries);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.parquet");
    std::fs::write(&path, bytes).unwrap();
    let reader = SerializedFileReader::try_from(path.as_path()).unwrap();
    assert!(reader.metadata().num_row_groups() > 1);
    let columns = reader
        .metadata()
        .file_metadata()
        .schema_descr()
        .num_columns();
    let mut rows = 0;
    for row in reader.get_row_iter(None).unwrap() {
        let row = row.unwrap();
        assert_eq!(row.get_long(0).unwrap(), i64::try_from(rows).unwrap());
        assert_eq!(row.get_string(columns - 1).unwrap(), &entries[rows]);
        rows += 1;
    }
    assert_eq!(rows, entries.len());
}
