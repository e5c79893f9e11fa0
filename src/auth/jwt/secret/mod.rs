//! The secret of HS256. It signs as well as it verifies, so a file with anything public lets anyone sign.
//!
//! A secret is one word of ASCII or random bytes, and shorter than an RSA modulus. That form excludes most of what is
//! public: PEM, sets of keys, certificates. The rest is recognized by its structure (`flaw.rs`).

mod flaw;

pub(super) use self::flaw::BYTE_ORDER_MARK;
use self::flaw::{FORM, MIN_BYTES, flaw};

/// The modulus of a 2048-bit RSA key has one byte more.
const MAX_BYTES: usize = 255;

/// Returns the secret in a key file: the text without its line end, or the bytes if they are not text.
///
/// # Errors
///
/// The flaw of the file, in one line that repeats nothing of it.
pub(in crate::auth) fn parse_secret(content: &[u8]) -> Result<&[u8], String> {
    const ADVICE: &str = "but HS256 needs a secret that nobody else knows; make one with `openssl rand -hex 32`";
    let secret = str::from_utf8(content).map_or(content, |text| text.trim_end_matches(['\r', '\n']).as_bytes());
    let bytes = secret.len();
    if bytes < MIN_BYTES {
        return Err(format!("has a secret of {bytes} bytes; HS256 needs {MIN_BYTES} or more"));
    }
    let has_form = is_word(secret) || is_random(secret);
    if let Some(flaw) = flaw(secret).or_else(|| (!has_form).then(|| FORM.to_owned())) {
        return Err(format!("{flaw}, {ADVICE}"));
    }
    if bytes > MAX_BYTES {
        return Err(format!("has {bytes} bytes, more than the {MAX_BYTES} that a secret may have, {ADVICE}"));
    }
    Ok(secret)
}

fn is_word(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_graphic)
}

/// Returns whether `bytes` have as many bytes beyond ASCII as random ones, and are not UTF-8. Of 32 random bytes one in
/// a hundred million has fewer.
fn is_random(bytes: &[u8]) -> bool {
    let beyond_ascii = bytes.iter().filter(|byte| !byte.is_ascii()).count();
    str::from_utf8(bytes).is_err() && beyond_ascii >= bytes.len() / 16
}

#[cfg(test)]
mod tests;
