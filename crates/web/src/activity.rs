//! What of a person's traffic is their doing, and what programs do by themselves.
//!
//! Activity is a request that is not passive, from when it has all come until its answer begins;
//! an upload, as far as it moves; and whole messages that the client sends through a WebSocket.
//! Waiting for the client is none, nor is anything that the resource sends.

use http::Method;
use http::header::{self, HeaderMap};
use http::request::Parts;

/// How much must come of an upload or a long message before it counts once more. Less moves a
/// session's idle clock no further than the request that it belongs to: a byte now and then is
/// nobody's work. A line of 20 kB/s sends this every 3 s.
pub(super) const MOVED_BYTES: usize = 64 * 1024;

/// The longest message that is compared with `passive_messages`. Heartbeats of the protocols that
/// have them (Socket.IO, Phoenix, SignalR, STOMP, MQTT, graphql-ws) have less than 100 bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 1_024;

/// Whether a path lies under one of a resource's `passive` paths: segment by segment, `*` for any
/// one of them.
pub(super) fn is_passive_path(path: &str, passive: &[String]) -> bool {
    passive.iter().any(|prefix| {
        let mut segments = path.split('/');
        prefix.trim_end_matches('/').split('/').all(|wanted| {
            segments
                .next()
                .is_some_and(|segment| wanted == "*" || wanted == segment)
        })
    })
}

/// Whether the browser sends this by itself: ahead of the person, to look for a newer service
/// worker, or to take up a stream of events that broke off.
pub(super) fn is_automatic(head: &Parts) -> bool {
    let says = |name: &str, begins: &[u8]| {
        let value = head.headers.get(name);
        value.is_some_and(|value| value.as_bytes().starts_with(begins))
    };
    // The first is of the Fetch standard; older browsers have the others.
    ["sec-purpose", "purpose", "x-moz"]
        .iter()
        .any(|name| says(name, b"prefetch"))
        || says("service-worker", b"script")
        || (head.method == Method::GET
            && head.headers.contains_key("last-event-id")
            && is_event_stream(&head.headers, &header::ACCEPT))
}

/// Whether a field names server-sent events.
pub(super) fn is_event_stream(headers: &HeaderMap, field: &header::HeaderName) -> bool {
    const KIND: &[u8] = b"text/event-stream";
    let kind = headers.get(field);
    let start = kind.and_then(|kind| kind.as_bytes().get(..KIND.len()));
    start.is_some_and(|start| start.eq_ignore_ascii_case(KIND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passive_path_takes_along_what_lies_under_it_and_no_more() {
        let passive = ["/api/poll".to_owned(), "/rooms/*/ping/".to_owned()];
        for path in [
            "/api/poll",
            "/api/poll/",
            "/api/poll/7",
            "/rooms/7/ping",
            "/rooms/7/ping/x",
        ] {
            assert!(is_passive_path(path, &passive), "{path}");
        }
        for path in [
            "/api/pollution",
            "/api",
            "/API/poll",
            "/x/api/poll",
            "/rooms/7",
            "/rooms/7/8/ping",
            "/rooms/7/pings",
            "/",
        ] {
            assert!(!is_passive_path(path, &passive), "{path}");
        }
        assert!(is_passive_path("/anything", &["/".to_owned()]));
        assert!(!is_passive_path("/anything", &[]));
    }
}
