//! Bodies of responses that a task writes while they are sent.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Returns a body and its writer. If the writer is dropped before [`BodyWriter::finish`], the transfer breaks off, so
/// that no client takes the body for complete.
pub fn streamed_body() -> (BodyWriter, Body) {
    // One chunk is sent while the next one is made.
    let (sender, receiver) = mpsc::channel(1);
    (BodyWriter(sender), Body::from_stream(stream::try_unfold(receiver, next)))
}

/// A part of the body, or its end.
enum Part {
    Chunk(Bytes),
    End,
}

async fn next(mut parts: Receiver<Part>) -> io::Result<Option<(Bytes, Receiver<Part>)>> {
    match parts.recv().await {
        Some(Part::Chunk(chunk)) => Ok(Some((chunk, parts))),
        Some(Part::End) => Ok(None),
        None => Err(io::Error::other("the writer broke off")),
    }
}

/// Writes a body.
pub struct BodyWriter(Sender<Part>);

/// Why a body is not written further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The client disconnected.
    #[error("the client disconnected")]
    Disconnected,
    /// The client reads too slowly, or not at all.
    #[error("the client took no further part in {}", humantime::format_duration(*.0))]
    Timeout(Duration),
}

impl BodyWriter {
    /// Writes a chunk once the client has taken the one before the previous one.
    ///
    /// # Errors
    ///
    /// A [`BodyError`] if it has not in `timeout`, or has disconnected.
    pub async fn write(&self, chunk: Bytes, timeout: Duration) -> Result<(), BodyError> {
        // An empty chunk would mark the end of the body.
        if chunk.is_empty() { Ok(()) } else { self.send(Part::Chunk(chunk), timeout).await }
    }

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub async fn finish(self, timeout: Duration) -> Result<(), BodyError> {
        self.send(Part::End, timeout).await
    }

    async fn send(&self, part: Part, timeout: Duration) -> Result<(), BodyError> {
        self.0.send_timeout(part, timeout).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => BodyError::Timeout(timeout),
            mpsc::error::SendTimeoutError::Closed(_) => BodyError::Disconnected,
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    const SOON: Duration = Duration::from_millis(1);
    const LATER: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn body_has_the_chunks_and_an_end() {
        let (writer, body) = streamed_body();
        let writing = async {
            writer.write("a".into(), LATER).await?;
            writer.write("b".into(), LATER).await?;
            writer.finish(LATER).await
        };
        let (written, read) = tokio::join!(writing, body.collect());
        assert_eq!((written, read.unwrap().to_bytes()), (Ok(()), "ab".into()));
    }

    #[tokio::test]
    async fn body_without_an_end_is_an_error() {
        let (writer, body) = streamed_body();
        writer.write("a".into(), LATER).await.unwrap();
        drop(writer);
        assert!(body.collect().await.is_err());
    }

    #[tokio::test]
    async fn write_fails_if_nobody_reads() {
        let (writer, body) = streamed_body();
        writer.write("a".into(), LATER).await.unwrap();
        assert_eq!(writer.write("b".into(), SOON).await, Err(BodyError::Timeout(SOON)));
        drop(body);
        assert_eq!(writer.write("b".into(), LATER).await, Err(BodyError::Disconnected));
    }
}
