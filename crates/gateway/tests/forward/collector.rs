//! An OTLP collector over HTTPS that does as it is told.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use tokio::net::TcpListener;

use super::{Arrived, Place, signed};

/// How a request is answered. The next one of the list; `Take` where there is none.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Taken.
    Take,
    /// Taken, but for so many.
    Partly(i64),
    /// Not taken: a status and `Retry-After`.
    Refuse(u16, Option<&'static str>),
    /// Taken, and the answer is never given.
    TakeInSilence,
}

/// What it has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// What it has taken, in order.
    pub(crate) taken: Vec<Arrived>,
    /// What of that it has acknowledged, by index.
    pub(crate) acknowledged: Vec<u64>,
    /// The same as records.
    pub(crate) records: Vec<LogRecord>,
    /// Records a request, and when it came.
    pub(crate) requests: Vec<(usize, std::time::Instant)>,
    /// Refuses any request with more records than this, with 413.
    pub(crate) most: Option<usize>,
    /// Refuses requests with this index while its body is there, with 400.
    pub(crate) poison: Option<u64>,
    pub(crate) replies: VecDeque<Reply>,
    /// Connections that are open.
    pub(crate) open: usize,
}

#[derive(Clone)]
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Seen>>,
    ledger: PathBuf,
}

impl Collector {
    pub(crate) async fn start(place: &Place) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let acceptor = place.acceptor();
        let collector = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            ledger: place.ledger(),
        };
        let serving = collector.clone();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, collector) = (acceptor.clone(), serving.clone());
                collector.see(|seen| seen.open += 1);
                tokio::spawn(async move {
                    if let Ok(tls) = acceptor.accept(tcp).await {
                        let service = service_fn(|request| collector.answer(request));
                        let http = hyper::server::conn::http1::Builder::new();
                        let _ = http.serve_connection(TokioIo::new(tls), service).await;
                    }
                    collector.see(|seen| seen.open -= 1);
                });
            }
        });
        collector
    }

    pub(crate) fn forward(&self) -> String {
        format!(
            "[[forward]]\nname = \"siem\"\nkind = \"otlp\"\nca = \"cert.pem\"\n\
             url = \"https://localhost:{}/v1/logs\"\ntoken_file = \"token\"\n",
            self.address.port()
        )
    }

    pub(crate) fn see<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap())
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let head = request.headers();
        assert_eq!(head["content-type"], "application/x-protobuf");
        assert_eq!(head["authorization"], "Bearer abc.def");
        assert_eq!(request.uri().path(), "/v1/logs");
        let Ok(body) = request.into_body().collect().await else {
            return Ok(plain(StatusCode::BAD_REQUEST));
        };
        let told = ExportLogsServiceRequest::decode(body.to_bytes()).unwrap();
        let reply = self.see(|seen| take(seen, &told, signed(&self.ledger)));
        match reply {
            Reply::Take => Ok(taken(None)),
            Reply::Partly(count) => Ok(taken(Some(count))),
            Reply::Refuse(status, wait) => {
                let mut refused = plain(StatusCode::from_u16(status).unwrap());
                if let Some(wait) = wait {
                    let wait = wait.parse().unwrap();
                    refused.headers_mut().insert("retry-after", wait);
                }
                Ok(refused)
            }
            Reply::TakeInSilence => std::future::pending().await,
        }
    }
}

fn take(seen: &mut Seen, told: &ExportLogsServiceRequest, signed: u64) -> Reply {
    let scopes = told.resource_logs.iter().flat_map(|logs| &logs.scope_logs);
    let records: Vec<_> = scopes.flat_map(|scope| scope.log_records.clone()).collect();
    let arrived: Vec<Arrived> = records.iter().map(arrived).collect();
    seen.requests
        .push((records.len(), std::time::Instant::now()));
    for one in &arrived {
        assert!(
            one.index < signed,
            "entry {} is under no signed checkpoint",
            one.index
        );
    }
    if seen.most.is_some_and(|most| records.len() > most) {
        return Reply::Refuse(413, None);
    }
    let with_body = |record: &&LogRecord| text(&record.body).is_some_and(|body| !body.is_empty());
    let whole = records
        .iter()
        .filter(with_body)
        .map(|record| self::arrived(record).index);
    if seen
        .poison
        .is_some_and(|poison| whole.clone().any(|index| index == poison))
    {
        return Reply::Refuse(400, None);
    }
    let reply = seen.replies.pop_front().unwrap_or(Reply::Take);
    match reply {
        Reply::Take | Reply::Partly(_) => {
            seen.acknowledged
                .extend(arrived.iter().map(|one| one.index));
            seen.taken.extend(arrived);
            seen.records.extend(records);
        }
        Reply::TakeInSilence => {
            seen.taken.extend(arrived);
            seen.records.extend(records);
        }
        Reply::Refuse(..) => {}
    }
    reply
}

pub(crate) fn attribute(record: &LogRecord, name: &str) -> Option<Value> {
    let found = record.attributes.iter().find(|pair| pair.key == name)?;
    found.value.clone()?.value
}

pub(crate) fn text(
    value: &Option<opentelemetry_proto::tonic::common::v1::AnyValue>,
) -> Option<String> {
    match value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

pub(crate) fn arrived(record: &LogRecord) -> Arrived {
    let Some(Value::IntValue(index)) = attribute(record, "curfew.index") else {
        panic!("no index in {record:?}");
    };
    let Some(Value::StringValue(leaf)) = attribute(record, "curfew.leaf") else {
        panic!("no leaf in {record:?}");
    };
    Arrived {
        index: u64::try_from(index).unwrap(),
        leaf,
    }
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from_static(b"no")));
    *answer.status_mut() = status;
    answer
}

fn taken(left_out: Option<i64>) -> Response<Full<Bytes>> {
    let answer = ExportLogsServiceResponse {
        partial_success: left_out.map(|count| ExportLogsPartialSuccess {
            rejected_log_records: count,
            error_message: "too old".to_owned(),
        }),
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.encode_to_vec())));
    let kind = "application/x-protobuf".parse().unwrap();
    response.headers_mut().insert("content-type", kind);
    response
}
