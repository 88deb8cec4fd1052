//! Errors as the admin socket gives them: problem details (RFC 9457).
//!
//! Owns the HTTP status of every failure. Must never answer with a status
//! that blames the wrong side.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::wire::Remark;

/// The media type of every error reply.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// One error reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// Always `about:blank`: the status says all that a program needs.
    #[serde(rename = "type")]
    pub about: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong and what to do next, in one sentence.
    pub detail: String,
    /// Every mistake found in the documents of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mistakes: Vec<Remark>,
    /// How many more mistakes there are than are listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted: usize,
    /// What was noticed beside the error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Remark>,
}

impl Problem {
    /// A problem of this status.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            about: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            mistakes: Vec::new(),
            omitted: 0,
            warnings: Vec::new(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}
