//! Stand-in for an OpenTelemetry collector: it keeps the exported spans.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message as _;
use tokio::net::TcpListener;

/// Collector on a free port.
pub struct Collector {
    pub address: SocketAddr,
    exports: Arc<Mutex<Vec<ResourceSpans>>>,
}

impl Collector {
    pub async fn start() -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub fn start_on(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let exports = Arc::<Mutex<Vec<ResourceSpans>>>::default();
        let all = Arc::clone(&exports);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let all = Arc::clone(&all);
                let service = service_fn(move |request| receive(request, Arc::clone(&all)));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, exports }
    }

    /// Returns the spans received so far.
    pub fn spans(&self) -> Vec<Span> {
        let exports = self.exports.lock().unwrap();
        let scopes = exports.iter().flat_map(|export| &export.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// Returns an attribute of the resource that sent the first export.
    pub fn attribute(&self, key: &str) -> Option<String> {
        let exports = self.exports.lock().unwrap();
        let Resource { attributes, .. } = exports.first()?.resource.clone()?;
        let attribute = attributes.into_iter().find(|attribute| attribute.key == key)?;
        match attribute.value?.value? {
            Value::StringValue(text) => Some(text),
            other => panic!("{key} is {other:?}"),
        }
    }
}

async fn receive(
    request: Request<Incoming>,
    exports: Arc<Mutex<Vec<ResourceSpans>>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut response = Response::new(Empty::new());
    if request.uri().path() != "/v1/traces" || request.headers()["content-type"] != "application/x-protobuf" {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    }
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let export = ExportTraceServiceRequest::decode(body).unwrap();
    exports.lock().unwrap().extend(export.resource_spans);
    Ok(response)
}
