//! Compression of answers with gzip.

use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;

/// Returns the layer of a route with long answers.
///
/// A layer costs a request a boxed future, so routes with small answers have none.
pub fn layer() -> CompressionLayer<SizeAbove> {
    /// Less fits into a packet or two.
    const MIN_BYTES: u64 = 1_000;
    // Compression runs between the requests of the same thread. The fastest level takes a quarter of the usual one's time.
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(SizeAbove::new(MIN_BYTES))
}
