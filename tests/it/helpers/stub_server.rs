//! An HTTP server with the test's own answers: a reverse proxy of the service, or a site that is not the service.

use std::convert::Infallible;
use std::net::SocketAddr;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// HTTP server on a free port.
pub struct StubServer {
    pub address: SocketAddr,
}

impl StubServer {
    /// Starts a server that responds to every request with `answer` of its body.
    pub async fn start<A>(answer: impl Fn(Bytes) -> A + Clone + Send + 'static) -> Self
    where
        A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answer.clone();
                let respond = service_fn(move |request: Request<Incoming>| {
                    let answer = answer.clone();
                    async move {
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        Ok::<_, Infallible>(answer(body).await)
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), respond));
            }
        });
        Self { address }
    }

    /// Starts a reverse proxy of the service at `service`. It rejects bodies of more than `max_bytes` bytes with 413,
    /// and calls `see` with the size of each body.
    pub async fn limit(service: SocketAddr, max_bytes: usize, see: impl Fn(usize) + Clone + Send + 'static) -> Self {
        let client = reqwest::Client::new();
        Self::start(move |body| {
            see(body.len());
            let client = client.clone();
            async move {
                if body.len() > max_bytes {
                    return Response::builder().status(413).body(Full::from("<html>too large</html>")).unwrap();
                }
                let request = client.post(format!("http://{service}/segments/batch")).body(body);
                let response = request.header("content-type", "application/x-ndjson").send().await.unwrap();
                let (status, body) = (response.status(), response.bytes().await.unwrap());
                Response::builder().status(status).body(Full::from(body)).unwrap()
            }
        })
        .await
    }
}
