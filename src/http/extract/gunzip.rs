//! Streaming gzip decoder.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_compression::tokio::bufread::GzipDecoder;
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

/// Decompresses a gzip stream of one or more members. Zero padding may follow the last member, as on tapes and block
/// devices.
// GzipDecoder decodes several members as well, but takes padding for a broken member.
pub struct Gunzip<R> {
    state: State<R>,
}

enum State<R> {
    Member(GzipDecoder<R>),
    AfterMember {
        compressed: R,
        is_padded: bool,
    },
    /// Output from before the failure is still unread.
    Failed {
        error: io::Error,
        compressed: Option<R>,
    },
    Ended,
}

impl<R: AsyncBufRead> Gunzip<R> {
    pub fn new(compressed: R) -> Self {
        Self { state: State::Member(GzipDecoder::new(compressed)) }
    }

    /// Returns the input, unless it has ended.
    pub fn into_compressed(self) -> Option<R> {
        match self.state {
            State::Member(member) => Some(member.into_inner()),
            State::AfterMember { compressed, .. } => Some(compressed),
            State::Failed { compressed, .. } => compressed,
            State::Ended => None,
        }
    }
}

impl<R: AsyncBufRead + Unpin> Gunzip<R> {
    /// Decompresses more, or advances to the next member. Returns whether there may be more.
    fn poll_step(&mut self, cx: &mut Context<'_>, output: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        match &mut self.state {
            State::Member(member) => {
                let before = output.filled().len();
                ready!(Pin::new(member).poll_read(cx, output))?;
                if output.filled().len() == before
                    && let State::Member(member) = self.take_state()
                {
                    self.state = State::AfterMember { compressed: member.into_inner(), is_padded: false };
                }
            }
            State::AfterMember { compressed, is_padded } => {
                let input = ready!(Pin::new(&mut *compressed).poll_fill_buf(cx))?;
                match input.iter().position(|byte| *byte != 0) {
                    None if input.is_empty() => self.state = State::Ended,
                    None => {
                        let zeros = input.len();
                        *is_padded = true;
                        Pin::new(compressed).consume(zeros);
                    }
                    Some(0) if input[0] == 0x1F && !*is_padded => {
                        if let State::AfterMember { compressed, .. } = self.take_state() {
                            *self = Self::new(compressed);
                        }
                    }
                    Some(_) => {
                        let why = "bytes that are no gzip follow the gzip data";
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
                    }
                }
            }
            State::Failed { .. } => {
                if let State::Failed { error, compressed } = self.take_state() {
                    if let Some(compressed) = compressed {
                        self.state = State::AfterMember { compressed, is_padded: true };
                    }
                    return Poll::Ready(Err(error));
                }
            }
            State::Ended => return Poll::Ready(Ok(false)),
        }
        Poll::Ready(Ok(true))
    }

    fn take_state(&mut self) -> State<R> {
        std::mem::replace(&mut self.state, State::Ended)
    }
}

impl<R: AsyncBufRead + Unpin> AsyncRead for Gunzip<R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, output: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        /// Steps without output before the task yields. A body may consist of any number of empty members.
        const MAX_STEPS: u32 = 64;
        let before = output.filled().len();
        let mut steps = 0;
        // Fills `output` from several small members. Output is returned before waiting for input and before a failure.
        while output.remaining() > 0 {
            let has_output = output.filled().len() > before;
            steps += 1;
            if steps > MAX_STEPS && !has_output {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match this.poll_step(cx, output) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => break,
                Poll::Ready(Err(error)) if has_output => {
                    let compressed = Self { state: this.take_state() }.into_compressed();
                    this.state = State::Failed { error, compressed };
                    break;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if has_output => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use axum::body::Bytes;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use futures_util::{StreamExt as _, stream};
    use rstest::rstest;
    use tokio::io::AsyncReadExt as _;
    use tokio_util::io::StreamReader;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut compressed = GzEncoder::new(Vec::new(), Compression::fast());
        compressed.write_all(text).unwrap();
        compressed.finish().unwrap()
    }

    /// Returns the text of a file that arrives in pieces of `size` bytes, and the error at its end.
    async fn gunzip(file: &[u8], size: usize) -> (Vec<u8>, Option<String>) {
        let pieces: Vec<_> = file.chunks(size).map(Bytes::copy_from_slice).collect();
        let compressed = Box::pin(stream::iter(pieces).then(|piece| async {
            tokio::task::yield_now().await;
            Ok::<_, io::Error>(piece)
        }));
        let mut text = Vec::new();
        let end = Gunzip::new(StreamReader::new(compressed)).read_to_end(&mut text).await;
        (text, end.err().map(|error| error.to_string()))
    }

    #[rstest]
    #[case::one_member(&[], None)]
    #[case::zeros(&[0; 100], None)]
    #[case::a_zero(b"\0", None)]
    #[case::text(b"x", Some("bytes that are no gzip follow the gzip data"))]
    #[case::text_after_zeros(b"\0\0x", Some("bytes that are no gzip follow the gzip data"))]
    #[case::gzip_after_zeros(b"\0\0\x1F\x8B", Some("bytes that are no gzip follow the gzip data"))]
    #[case::half_a_header(b"\x1F\x8B\x08\0", Some("unexpected end of file"))]
    #[case::another_header(b"\x1F\x8C\x08\0\0\0\0\0\0\0", Some("Invalid gzip header"))]
    #[tokio::test]
    async fn gunzip_reads_all_members_and_refuses_other_bytes_after_them(
        #[case] rest: &[u8],
        #[case] failure: Option<&str>,
    ) {
        let file = [gzip(b"one\n"), gzip(b""), gzip(&b"two\n".repeat(1_000)), rest.to_vec()].concat();
        let expected = [b"one\n".to_vec(), b"two\n".repeat(1_000)].concat();
        for size in (1..=file.len()).chain([100_000]) {
            let (text, why) = gunzip(&file, size).await;
            assert!(text == expected, "pieces of {size} bytes");
            assert_eq!(why.as_deref(), failure, "pieces of {size} bytes");
        }
    }

    #[tokio::test]
    async fn gunzip_refuses_a_truncated_member() {
        let file = gzip(b"one\n");
        for length in 0..file.len() {
            assert!(gunzip(&file[..length], 5).await.1.is_some(), "{length} bytes");
        }
    }

    #[tokio::test]
    async fn gunzip_lets_other_tasks_run_between_members_that_are_empty() {
        let file = gzip(b"").repeat(10_000);
        let (turns, is_read) = (std::cell::Cell::new(0), std::cell::Cell::new(false));
        let reading = async {
            let mut text = Vec::new();
            Gunzip::new(&file[..]).read_to_end(&mut text).await.unwrap();
            is_read.set(true);
            assert!(text.is_empty());
        };
        let others = async {
            while !is_read.get() {
                turns.set(turns.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(reading, others);
        assert!(turns.get() > 100, "{} turns", turns.get());
    }
}
