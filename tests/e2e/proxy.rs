//! A reverse proxy that adds a path prefix, such as that of a team's gateway.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::service::Service;

/// Starts a proxy that serves the service under `prefix`, and nothing elsewhere. Returns its URL without the prefix. It
/// ends with the test's runtime.
pub async fn start_with_prefix(service: &Service, prefix: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let upstream = service.origin.strip_prefix("http://").unwrap().to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let upstream = upstream.clone();
            // The browser may close a connection at any time.
            tokio::spawn(async move { forward(client, &upstream, prefix).await.ok() });
        }
    });
    origin
}

/// Forwards one request, with its path below `prefix`.
async fn forward(mut client: TcpStream, upstream: &str, prefix: &str) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        if client.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let request = String::from_utf8(request).unwrap();
    let Some((method, rest)) = request.split_once(&format!(" {prefix}/")) else {
        let nothing = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        return client.write_all(nothing.as_bytes()).await;
    };
    // The next request comes on another connection, and so passes here, too.
    let (line, headers) = rest.split_once("\r\n").unwrap();
    let headers = headers.replace("Connection: keep-alive\r\n", "");
    let added = format!("connection: close\r\nx-forwarded-prefix: {prefix}\r\n");
    let mut server = TcpStream::connect(upstream).await?;
    server.write_all(format!("{method} /{line}\r\n{added}{headers}").as_bytes()).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
