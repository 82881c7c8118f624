//! OTLP logs: what the file exporter of OpenTelemetry writes, one `ExportLogsServiceRequest` in
//! JSON a line.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::facts::Severity;
use crate::lines::columns;
use crate::record::{Record, Source};

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

/// These records as one request.
pub fn request(records: &[Record], source: &Source) -> ExportLogsServiceRequest {
    let resource = Resource {
        attributes: vec![
            text("service.name", "curfew"),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("host.name", &source.host),
            text("curfew.log", &source.origin),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "curfew.audit".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let log_records = records.iter().map(log_record).collect();
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope),
                log_records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }
}

/// The names of the semantic conventions where there is one.
fn key(column: &str) -> String {
    match column {
        "subject" => "user.name".to_owned(),
        "session" => "session.id".to_owned(),
        "address" => "client.address".to_owned(),
        "method" => "http.request.method".to_owned(),
        "path" => "url.path".to_owned(),
        "statement" => "db.query.text".to_owned(),
        "client" => "user_agent.original".to_owned(),
        other => format!("curfew.{other}"),
    }
}

fn log_record(record: &Record) -> LogRecord {
    let time = record.time.as_micros().saturating_mul(1_000);
    // Indexes past 2^63 do not exist: OTLP has signed integers only.
    let index = i64::try_from(record.index).unwrap_or(i64::MAX);
    let mut attributes = vec![
        attribute("curfew.index", Value::IntValue(index)),
        text("curfew.leaf", &record.leaf_hex()),
        text("curfew.message", &record.message()),
    ];
    let columns = columns(record).into_iter();
    let there = columns.filter(|(_, value)| !value.is_empty());
    attributes.extend(there.map(|(name, value)| text(&key(name), &value)));
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: severity(record.facts.severity).into(),
        severity_text: record.facts.severity.as_str().to_owned(),
        event_name: format!("curfew.{}", record.facts.kind),
        body: Some(AnyValue {
            value: Some(Value::StringValue(record.entry().to_owned())),
        }),
        attributes,
        ..LogRecord::default()
    }
}

fn severity(severity: Severity) -> SeverityNumber {
    match severity {
        Severity::Informational => SeverityNumber::Info,
        Severity::Low => SeverityNumber::Info2,
        Severity::Medium => SeverityNumber::Warn,
        Severity::High => SeverityNumber::Error,
        Severity::Critical => SeverityNumber::Fatal,
    }
}
