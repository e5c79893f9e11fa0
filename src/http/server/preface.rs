//! Reads the preface of HTTP/2 in one piece.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The preface of HTTP/2 with prior knowledge ([RFC 9113](https://www.rfc-editor.org/rfc/rfc9113), section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Holds back the start of a connection while it may become the preface of HTTP/2. hyper recognizes a preface that it
/// reads as a whole, and answers a part of it with 400.
#[derive(Debug)]
pub struct PrefaceReader<S> {
    stream: S,
    /// The number of bytes that are held back, which are the first ones of the preface; `None` after the start.
    held: Option<usize>,
}

impl<S> PrefaceReader<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, held: Some(0) }
    }
}

impl<S: AsyncRead + Unpin> PrefaceReader<S> {
    /// Reads until the start is decided. `buffer` must have room for the preface, as hyper's has.
    fn poll_start(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        while let Some(held) = self.held {
            buffer.put_slice(&PREFACE[..held]);
            let read = Pin::new(&mut self.stream).poll_read(context, buffer);
            let start = &buffer.filled()[before..];
            let has_ended = read.is_ready() && start.len() == held;
            if has_ended || start.len() >= PREFACE.len() || !PREFACE.starts_with(start) {
                self.held = None;
                return read;
            }
            self.held = Some(start.len());
            buffer.set_filled(before);
            ready!(read)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PrefaceReader<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.held {
            None => Pin::new(&mut self.stream).poll_read(context, buffer),
            Some(_) => self.poll_start(context, buffer),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PrefaceReader<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use rstest::rstest;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    /// Returns what is read without waiting; `None` if nothing is.
    fn read_now(reader: &mut PrefaceReader<DuplexStream>) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 8_192];
        let read = reader.read(&mut bytes).now_or_never()?.unwrap();
        bytes.truncate(read);
        Some(bytes)
    }

    #[rstest]
    #[case::after_a_byte(1)]
    #[case::within_the_version(13)]
    #[case::before_the_last_byte(23)]
    #[tokio::test]
    async fn read_passes_a_split_preface_on_as_a_whole(#[case] split: usize) {
        let (mut client, server) = duplex(100);
        let mut reader = PrefaceReader::new(server);
        client.write_all(&PREFACE[..split]).await.unwrap();
        assert_eq!(read_now(&mut reader), None);
        client.write_all(&PREFACE[split..]).await.unwrap();
        client.write_all(b"frames").await.unwrap();
        assert_eq!(read_now(&mut reader), Some([PREFACE.as_slice(), b"frames"].concat()));
        client.write_all(b"PRI").await.unwrap();
        assert_eq!(read_now(&mut reader), Some(b"PRI".to_vec()), "it is not the start any more");
    }

    #[rstest]
    #[case::request(b"GET / HTTP/1.1\r\n", b"")]
    #[case::method_that_begins_alike(b"P", b"OST")]
    #[case::another_version(b"PRI * HTTP/", b"1.1\r\n\r\n")]
    #[tokio::test]
    async fn read_passes_other_starts_on(#[case] first: &[u8], #[case] rest: &[u8]) {
        let (mut client, server) = duplex(100);
        let mut reader = PrefaceReader::new(server);
        client.write_all(first).await.unwrap();
        if !rest.is_empty() {
            assert_eq!(read_now(&mut reader), None);
            client.write_all(rest).await.unwrap();
        }
        assert_eq!(read_now(&mut reader), Some([first, rest].concat()));
    }

    #[tokio::test]
    async fn read_passes_an_end_on() {
        let (mut client, server) = duplex(100);
        let mut reader = PrefaceReader::new(server);
        client.write_all(b"PRI").await.unwrap();
        drop(client);
        assert_eq!(read_now(&mut reader), Some(b"PRI".to_vec()));
        assert_eq!(read_now(&mut reader), Some(Vec::new()));
    }
}
