//! A batch that the test sends chunk by chunk.

use std::net::SocketAddr;
use std::panic::Location;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::in_time;

/// A `POST /segments/batch` in flight, with lines in chunks of the test's choice.
pub struct Upload(TcpStream);

impl Upload {
    /// Sends the head.
    pub async fn begin(address: SocketAddr) -> Self {
        Self::begin_with_headers(address, "").await
    }

    /// Sends the head with a token.
    pub async fn begin_with_token(address: SocketAddr, token: &str) -> Self {
        Self::begin_with_headers(address, &format!("authorization: Bearer {token}\r\n")).await
    }

    async fn begin_with_headers(address: SocketAddr, headers: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let head = format!(
            "POST /segments/batch HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\
             content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        Self(stream)
    }

    /// Sends a chunk.
    pub async fn send(&mut self, chunk: &[u8]) {
        let mut framed = format!("{:x}\r\n", chunk.len()).into_bytes();
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
        self.0.write_all(&framed).await.unwrap();
    }

    /// Ends the body. Returns the status and the document of the response.
    #[track_caller]
    pub fn end(mut self) -> impl Future<Output = (u16, Value)> {
        let caller = Location::caller();
        async move {
            self.0.write_all(b"0\r\n\r\n").await.unwrap();
            self.read_response(caller).await
        }
    }

    /// Waits for the response to an unfinished body. Returns its status and document.
    #[track_caller]
    pub fn answer(self) -> impl Future<Output = (u16, Value)> {
        self.read_response(Location::caller())
    }

    async fn read_response(mut self, caller: &Location<'_>) -> (u16, Value) {
        let mut answer = String::new();
        let what = format!("{caller}: the response to an upload");
        in_time(&what, self.0.read_to_string(&mut answer)).await.unwrap();
        let response = answer.split_once("\r\n\r\n");
        let (head, body) = response.unwrap_or_else(|| panic!("{caller}: no response: {answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }
}
