//! The formats of one line an entry: CEF, syslog and CloudEvents.

use std::fmt::Write;

use curfew_entry::visible;
use serde_json::{Map, Value, json, value::RawValue};

use crate::facts::{Outcome, Severity};
use crate::record::{Record, Source};
use crate::text::cut;

/// The longest value in a CEF extension or syslog parameter, in bytes. Receivers should take
/// 8,192 bytes a message (RFC 5425 section 4.3.1): two long values, 1,500 each, and twenty short
/// ones fit.
const VALUE_BYTES_MAX: usize = 1_500;

/// The private enterprise number of the structured data: 32473 is the one RFC 5612 sets aside
/// for examples, since Curfew has none of its own.
const ENTERPRISE: u32 = 32_473;

/// Facility 13, log audit (RFC 5424 section 6.2.1).
const FACILITY: u32 = 13;

/// The columns that all flat formats share, in their order: name and value.
pub(crate) fn columns(record: &Record) -> Vec<(&'static str, String)> {
    let facts = &record.facts;
    let number = |number: Option<u64>| number.map(|n| n.to_string());
    let text = |text: Option<&str>| text.map(str::to_owned);
    let all = [
        ("outcome", text(Some(facts.outcome.as_str()))),
        ("decision", text(facts.decision.map(|d| d.as_str()))),
        ("subject", facts.subject.clone()),
        (
            "roles",
            Some(facts.roles.join(" ")).filter(|t| !t.is_empty()),
        ),
        ("session", facts.session.clone()),
        ("credential", facts.credential.clone()),
        ("plane", text(facts.plane)),
        ("verb", text(facts.verb)),
        ("resource", facts.resource.clone()),
        ("address", facts.address.map(|a| a.to_string())),
        ("network", facts.network.clone()),
        (
            "rules",
            Some(facts.rules.join(" ")).filter(|t| !t.is_empty()),
        ),
        ("reason", facts.reason.clone()),
        ("by", facts.by.clone()),
        ("method", facts.method.clone()),
        ("path", facts.path.clone()),
        ("statement", facts.statement.clone()),
        ("fingerprint", facts.fingerprint.clone()),
        ("client", facts.client.clone()),
        ("account", text(facts.account)),
        ("connection", number(facts.connection)),
        ("late_us", number(facts.late_us)),
        ("bytes_in", number(facts.bytes_in)),
        ("bytes_out", number(facts.bytes_out)),
    ];
    let there = |(name, value): (&'static str, Option<String>)| (name, value.unwrap_or_default());
    all.into_iter().map(there).collect()
}

/// ArcSight CEF:0, without a syslog header.
///
/// In the header `\` and `|` are escaped, in the extension `\` and `=`; what is invisible, line
/// ends among it, is spelled out before.
pub fn cef(record: &Record, source: &Source) -> String {
    let facts = &record.facts;
    let mut line = format!(
        "CEF:0|Curfew|Curfew|{}|{}|{}|{}|",
        env!("CARGO_PKG_VERSION"),
        facts.kind,
        cef_header(&record.message()),
        cef_severity(facts.severity),
    );
    let index = record.index.to_string();
    let bytes = |n: Option<u64>| n.map(|n| n.to_string());
    let leaf = record.leaf_hex();
    let fields = [
        ("rt", Some((record.time.as_micros() / 1_000).to_string())),
        ("dvchost", Some(source.host.clone())),
        ("externalId", Some(index)),
        ("outcome", Some(facts.outcome.as_str().to_owned())),
        ("act", facts.decision.map(|d| d.as_str().to_owned())),
        ("suser", facts.subject.clone()),
        ("src", facts.address.map(|a| a.to_string())),
        ("reason", facts.reason.clone()),
        ("destinationServiceName", facts.resource.clone()),
        ("requestMethod", facts.method.clone()),
        ("request", facts.path.clone()),
        ("requestClientApplication", facts.client.clone()),
        ("in", bytes(facts.bytes_in)),
        ("out", bytes(facts.bytes_out)),
        ("cs1Label", Some("leafHash".to_owned())),
        ("cs1", Some(leaf)),
        (
            "cs2Label",
            facts.session.as_ref().map(|_| "session".to_owned()),
        ),
        ("cs2", facts.session.clone()),
        ("cs3Label", facts.verb.map(|_| "verb".to_owned())),
        ("cs3", facts.verb.map(str::to_owned)),
        (
            "cs4Label",
            facts.statement.as_ref().map(|_| "statement".to_owned()),
        ),
        ("cs4", facts.statement.clone()),
        (
            "cs5Label",
            (!facts.rules.is_empty()).then(|| "rules".to_owned()),
        ),
        (
            "cs5",
            (!facts.rules.is_empty()).then(|| facts.rules.join(" ")),
        ),
        ("cs6Label", Some("log".to_owned())),
        ("cs6", Some(source.origin.clone())),
    ];
    let mut first = true;
    for (name, value) in fields {
        if let Some(value) = value {
            let space = if first { "" } else { " " };
            let _ = write!(line, "{space}{name}={}", cef_value(&value));
            first = false;
        }
    }
    line
}

fn cef_header(text: &str) -> String {
    let text = cut(text, VALUE_BYTES_MAX).replace('\\', "\\\\");
    escape_visible(&text.replace('|', "\\|"), "\\\\")
}

fn cef_value(text: &str) -> String {
    let text = cut(text, VALUE_BYTES_MAX).replace('\\', "\\\\");
    escape_visible(&text.replace('=', "\\="), "\\\\")
}

/// Spells out what is invisible, with the backslash written as the format wants it.
fn escape_visible(text: &str, backslash: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let mut buffer = [0; 4];
        let piece = visible(c.encode_utf8(&mut buffer));
        if piece.len() > c.len_utf8() {
            out.push_str(&piece.replace('\\', backslash));
        } else {
            out.push_str(&piece);
        }
    }
    out
}

fn cef_severity(severity: Severity) -> u8 {
    match severity {
        Severity::Informational => 1,
        Severity::Low => 3,
        Severity::Medium => 5,
        Severity::High => 8,
        Severity::Critical => 10,
    }
}

/// RFC 5424, one message. Octet counting or a line end is the transport's.
pub fn syslog(record: &Record, source: &Source) -> String {
    let facts = &record.facts;
    let mut line = format!(
        "<{}>1 {} {} curfew - {} [curfew@{ENTERPRISE}",
        FACILITY * 8 + syslog_severity(facts.severity, facts.outcome),
        record.time,
        syslog_name(&source.host, 255),
        syslog_name(facts.kind, 32),
    );
    let ids = [
        ("log", source.origin.clone()),
        ("index", record.index.to_string()),
        ("leaf", record.leaf_hex()),
        ("severity", facts.severity.as_str().to_owned()),
    ];
    let fields = columns(record);
    for (name, value) in ids.into_iter().chain(fields) {
        if !value.is_empty() {
            let _ = write!(line, " {name}=\"{}\"", syslog_value(&value));
        }
    }
    let _ = write!(
        line,
        "] {}",
        visible(&cut(&record.message(), VALUE_BYTES_MAX))
    );
    line
}

/// Header fields are printable ASCII without spaces; `-` where nothing is left.
fn syslog_name(text: &str, bytes_max: usize) -> String {
    let name: String = text
        .chars()
        .filter(char::is_ascii_graphic)
        .take(bytes_max)
        .collect();
    if name.is_empty() {
        "-".to_owned()
    } else {
        name
    }
}

/// RFC 5424 section 6.3.3: `"`, `\` and `]` carry a backslash.
fn syslog_value(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in cut(text, VALUE_BYTES_MAX).chars() {
        if matches!(c, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(c);
    }
    escape_visible(&out, "\\\\")
}

fn syslog_severity(severity: Severity, outcome: Outcome) -> u32 {
    match severity {
        Severity::Informational if outcome == Outcome::Success => 6,
        Severity::Informational | Severity::Low => 5,
        Severity::Medium => 4,
        Severity::High => 3,
        Severity::Critical => 2,
    }
}

/// CloudEvents 1.0 in JSON, the entry itself as its data.
///
/// # Errors
/// Never in practice: every value is JSON.
pub fn cloudevent(record: &Record, source: &Source) -> Result<String, serde_json::Error> {
    let facts = &record.facts;
    let mut event: Map<String, Value> = Map::new();
    let mut put = |name: &str, value: Value| {
        event.insert(name.to_owned(), value);
    };
    put("specversion", json!("1.0"));
    put("id", json!(record.index.to_string()));
    put("source", json!(format!("urn:curfew:{}", source.origin)));
    put("type", json!(format!("curfew.{}", facts.kind)));
    put("time", json!(record.time.to_string()));
    // Twenty digits hold any index, so that the order of texts is the order of entries.
    put("sequence", json!(format!("{:020}", record.index)));
    put("leafhash", json!(record.leaf_hex()));
    put("severitytext", json!(facts.severity.as_str()));
    if let Some(resource) = &facts.resource {
        put("subject", json!(resource));
    }
    match &facts.subject {
        Some(subject) => {
            put("authtype", json!("app_user"));
            put("authid", json!(subject));
        }
        None => put("authtype", json!("unknown")),
    }
    if let Some(session) = &facts.session {
        put("correlationid", json!(session));
    }
    put("datacontenttype", json!("application/json"));
    let head = serde_json::to_string(&event)?;
    // The entry stands there byte for byte; what is no JSON becomes a text.
    let data = match serde_json::from_slice::<&RawValue>(&record.bytes) {
        Ok(raw) => raw.get().to_owned(),
        Err(_) => serde_json::to_string(&String::from_utf8_lossy(&record.bytes))?,
    };
    let head = head.strip_suffix('}').unwrap_or(&head);
    Ok(format!("{head},\"data\":{data}}}"))
}
