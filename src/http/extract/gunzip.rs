//! gzip, unpacked as it arrives.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_compression::tokio::bufread::GzipDecoder;
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

/// The text of a gzip file. Files that were joined are one text. Zeros may fill up the file behind the last of them, as tapes and
/// block devices do.
// The decoder reads several members as well, and takes zeros for one that is broken.
pub struct Gunzip<R> {
    state: State<R>,
}

enum State<R> {
    Member(GzipDecoder<R>),
    BehindMember {
        packed: R,
        is_padded: bool,
    },
    /// What was unpacked before is still to be read.
    Failed {
        error: io::Error,
        packed: Option<R>,
    },
    Ended,
}

impl<R: AsyncBufRead> Gunzip<R> {
    pub fn new(packed: R) -> Self {
        Self { state: State::Member(GzipDecoder::new(packed)) }
    }

    /// What it reads from, unless that has ended.
    pub fn into_packed(self) -> Option<R> {
        match self.state {
            State::Member(member) => Some(member.into_inner()),
            State::BehindMember { packed, .. } => Some(packed),
            State::Failed { packed, .. } => packed,
            State::Ended => None,
        }
    }
}

impl<R: AsyncBufRead + Unpin> Gunzip<R> {
    /// Unpacks more, or comes to the next member. Returns whether there may be more.
    fn poll_step(&mut self, cx: &mut Context<'_>, text: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        match &mut self.state {
            State::Member(member) => {
                let before = text.filled().len();
                ready!(Pin::new(member).poll_read(cx, text))?;
                if text.filled().len() == before
                    && let State::Member(member) = self.take_state()
                {
                    self.state = State::BehindMember { packed: member.into_inner(), is_padded: false };
                }
            }
            State::BehindMember { packed, is_padded } => {
                let ahead = ready!(Pin::new(&mut *packed).poll_fill_buf(cx))?;
                match ahead.iter().position(|byte| *byte != 0) {
                    None if ahead.is_empty() => self.state = State::Ended,
                    None => {
                        let zeros = ahead.len();
                        *is_padded = true;
                        Pin::new(packed).consume(zeros);
                    }
                    Some(0) if ahead[0] == 0x1F && !*is_padded => {
                        if let State::BehindMember { packed, .. } = self.take_state() {
                            *self = Self::new(packed);
                        }
                    }
                    Some(_) => {
                        let why = "bytes that are no gzip follow the gzip data";
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
                    }
                }
            }
            State::Failed { .. } => {
                if let State::Failed { error, packed } = self.take_state() {
                    if let Some(packed) = packed {
                        self.state = State::BehindMember { packed, is_padded: true };
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
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, text: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        /// Steps before other tasks get their turn: a member may be empty, and there may be any number of them.
        const STEPS: u32 = 64;
        let before = text.filled().len();
        let mut steps = 0;
        // Small members fill a piece together. What there is waits for nothing, and comes before a failure.
        while text.remaining() > 0 {
            let has_text = text.filled().len() > before;
            steps += 1;
            if steps > STEPS && !has_text {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match this.poll_step(cx, text) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => break,
                Poll::Ready(Err(error)) if has_text => {
                    let packed = Self { state: this.take_state() }.into_packed();
                    this.state = State::Failed { error, packed };
                    break;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if has_text => break,
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
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(text).unwrap();
        packed.finish().unwrap()
    }

    /// The text of a file that arrives in pieces of so many bytes, and why there is no more.
    async fn gunzip(file: &[u8], size: usize) -> (Vec<u8>, Option<String>) {
        let pieces: Vec<_> = file.chunks(size).map(Bytes::copy_from_slice).collect();
        let packed = Box::pin(stream::iter(pieces).then(|piece| async {
            tokio::task::yield_now().await;
            Ok::<_, io::Error>(piece)
        }));
        let mut text = Vec::new();
        let end = Gunzip::new(StreamReader::new(packed)).read_to_end(&mut text).await;
        (text, end.err().map(|error| error.to_string()))
    }

    #[rstest]
    #[case::one_member(&[], None)]
    #[case::zeros(&[0; 100], None)]
    #[case::a_zero(b"\0", None)]
    #[case::text(b"x", Some("bytes that are no gzip follow the gzip data"))]
    #[case::text_behind_zeros(b"\0\0x", Some("bytes that are no gzip follow the gzip data"))]
    #[case::gzip_behind_zeros(b"\0\0\x1F\x8B", Some("bytes that are no gzip follow the gzip data"))]
    #[case::half_a_header(b"\x1F\x8B\x08\0", Some("unexpected end of file"))]
    #[case::another_header(b"\x1F\x8C\x08\0\0\0\0\0\0\0", Some("Invalid gzip header"))]
    #[tokio::test]
    async fn gunzip_reads_all_members_and_tells_what_follows_them(#[case] rest: &[u8], #[case] failure: Option<&str>) {
        let file = [gzip(b"one\n"), gzip(b""), gzip(&b"two\n".repeat(1_000)), rest.to_vec()].concat();
        let expected = [b"one\n".to_vec(), b"two\n".repeat(1_000)].concat();
        for size in (1..=file.len()).chain([100_000]) {
            let (text, why) = gunzip(&file, size).await;
            assert!(text == expected, "pieces of {size} bytes");
            assert_eq!(why.as_deref(), failure, "pieces of {size} bytes");
        }
    }

    #[tokio::test]
    async fn gunzip_tells_a_member_that_is_cut_off() {
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
