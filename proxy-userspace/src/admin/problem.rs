//! Errors as the admin socket gives them: problem details (RFC 9457).
//!
//! Owns the HTTP status of every failure. Must never answer with a status
//! that blames the wrong side.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::wire::Remark;
use crate::config::PatchError;
use crate::control::{ExplainError, InstallError, Refusal};

/// The media type of every error reply.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// One error reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// Always `about:blank`: the status says all that a program needs.
    #[serde(rename = "type")]
    pub about: About,
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

/// The type of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum About {
    /// No more than the status says.
    #[serde(rename = "about:blank")]
    Blank,
}

impl Problem {
    /// A problem of this status.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            about: About::Blank,
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            mistakes: Vec::new(),
            omitted: 0,
            warnings: Vec::new(),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let mut problem = Self::new(status_of(&refusal), refusal.to_string());
        match refusal {
            Refusal::Mistakes(mistakes) => {
                problem.mistakes = mistakes.mistakes.iter().map(Remark::new).collect();
                problem.omitted = mistakes.omitted;
            }
            Refusal::Conflict(sentences) | Refusal::Absent(sentences) if sentences.len() > 1 => {
                problem.mistakes = sentences.into_iter().map(Remark::plain).collect();
            }
            _ => {}
        }
        problem
    }
}

/// Whose fault it is, as HTTP says it.
fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::Patch(PatchError::Malformed(_)) => StatusCode::BAD_REQUEST,
        Refusal::Mistakes(mistakes) if mistakes.unreadable => StatusCode::BAD_REQUEST,
        Refusal::Mistakes(_)
        | Refusal::OtherObject { .. }
        | Refusal::Install(InstallError::Refused(_))
        | Refusal::Explain(ExplainError::UnclearDestination(_)) => StatusCode::UNPROCESSABLE_ENTITY,
        // RFC 5789 has it for a patch that the state of the object does not allow.
        Refusal::Conflict(_)
        | Refusal::NothingBefore
        | Refusal::Patch(PatchError::Operation { .. }) => StatusCode::CONFLICT,
        Refusal::Absent(_)
        | Refusal::NoGeneration(_)
        | Refusal::Explain(ExplainError::UnknownWorkload(_)) => StatusCode::NOT_FOUND,
        Refusal::Precondition(..) => StatusCode::PRECONDITION_FAILED,
        Refusal::Patch(PatchError::TooMany(_) | PatchError::TooLarge) => {
            StatusCode::PAYLOAD_TOO_LARGE
        }
        Refusal::Busy => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Install(InstallError::Failed(_) | InstallError::Closed(_))
        | Refusal::NotStored(_)
        | Refusal::WriterGone
        | Refusal::Torn { .. }
        | Refusal::History(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}
