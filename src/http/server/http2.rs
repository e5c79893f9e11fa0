//! Refuses HTTP/2 with prior knowledge by HTTP/2 frames ([RFC 9113](https://www.rfc-editor.org/rfc/rfc9113)). A client
//! would report a response in HTTP/1.1 as a broken frame, without its text.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Debug data of the `GOAWAY` frame, which clients show.
const REASON: &str = "this service speaks HTTP/1.1 alone";

/// Responds to the preface of HTTP/2, which was already read from `stream`: with `SETTINGS`, which every server sends
/// first (section 3.4), and a `GOAWAY` that asks for HTTP/1.1.
pub async fn refuse(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_all(&frames()).await?;
    stream.shutdown().await?;
    // Unread input would make the system reset the connection before the client has read the frames.
    let mut rest = [0; 4_096];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

fn frames() -> Vec<u8> {
    const SETTINGS: u8 = 0x04;
    const GOAWAY: u8 = 0x07;
    /// Section 7.
    const HTTP_1_1_REQUIRED: u32 = 0x0d;
    // No stream was processed, so the client may repeat its requests elsewhere (section 6.8).
    let last_stream = 0_u32;
    let goaway = [&last_stream.to_be_bytes()[..], &HTTP_1_1_REQUIRED.to_be_bytes(), REASON.as_bytes()].concat();
    [frame(SETTINGS, &[]), frame(GOAWAY, &goaway)].concat()
}

/// Returns a frame without flags for the connection itself (section 4.1).
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    [&length[1..], &[kind, 0], &[0; 4], payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_settings_and_goaway() {
        let expected = [
            b"\0\0\0\x04\0\0\0\0\0".as_slice(),
            b"\0\0\x2a\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0d",
            b"this service speaks HTTP/1.1 alone",
        ];
        assert_eq!(frames(), expected.concat());
    }
}
