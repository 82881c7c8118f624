//! OTLP logs: `ExportLogsServiceRequest`, in JSON as the file exporter of OpenTelemetry writes it,
//! or in protobuf as OTLP/HTTP sends it.

use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;

use prost::Message as _;

use crate::facts::Severity;
use crate::lines::columns;
use crate::record::{Record, Source};

/// Records in one OTLP request: 256 × about 1.5 kB are under the 4 MiB that collectors take.
pub const RECORDS_MAX: usize = 256;

/// Bytes of entries in one OTLP request, should these be long: twice that is under 4 MiB.
pub const BYTES_MAX: usize = 1024 * 1024;

/// What a receiver says it left out of a request that it took. It is not to be sent again
/// (OTLP 1.9, "Partial Success").
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LeftOut {
    /// How many records.
    pub count: u64,
    /// Why; or a warning, where the count is 0.
    pub message: String,
}

/// These records as the body of a request over OTLP/HTTP, `application/x-protobuf`.
pub fn encode(records: &[Record], source: &Source) -> Vec<u8> {
    request(records, source).encode_to_vec()
}

/// What the body of an answer with a status of success says, whose `Content-Type` is `kind`.
///
/// # Errors
/// When that is no answer of OTLP: something else listens there.
pub fn left_out(kind: Option<&str>, body: &[u8]) -> Result<LeftOut, String> {
    if body.is_empty() {
        return Ok(LeftOut::default());
    }
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or("");
    match kind.trim().to_ascii_lowercase().as_str() {
        "application/x-protobuf" => {
            let answer = ExportLogsServiceResponse::decode(body);
            let partial = answer.map_err(|error| error.to_string())?.partial_success;
            let partial = partial.unwrap_or_default();
            Ok(LeftOut {
                count: u64::try_from(partial.rejected_log_records).unwrap_or(0),
                message: partial.error_message,
            })
        }
        "application/json" => {
            let answer: serde_json::Map<String, serde_json::Value> =
                serde_json::from_slice(body).map_err(|error| error.to_string())?;
            let partial = answer
                .get("partialSuccess")
                .unwrap_or(&serde_json::Value::Null);
            // ProtoJSON writes 64 bits as a text; some write a number.
            let count = &partial["rejectedLogRecords"];
            let text = count.as_str().and_then(|count| count.parse().ok());
            Ok(LeftOut {
                count: count.as_u64().or(text).unwrap_or(0),
                message: partial["errorMessage"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
            })
        }
        _ => Err(format!(
            "an answer of OTLP is no `{}`",
            crate::visible(kind)
        )),
    }
}

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
