//! The body of a request or an answer on the admin socket, as one buffer.
//!
//! Must never hold more than its bound, however much comes.

use std::error::Error;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Incoming};

/// All of `body`, or an error that is a [`http_body_util::LengthLimitError`] if
/// it is longer than `max` bytes. Memory is taken once, for as much as was
/// declared, and each piece is let go of before the next one is read.
pub async fn gather(body: Incoming, max: usize) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(max);
    let mut bytes = Vec::with_capacity(declared.min(max));
    let mut body = Limited::new(body, max);
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            bytes.extend_from_slice(data);
        }
    }
    Ok(bytes)
}
