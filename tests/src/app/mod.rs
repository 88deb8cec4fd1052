//! The demo's applications: small HTTP services that call one another, and
//! know nothing of weir.

pub mod echo;
mod http;
pub mod msgd;
pub mod svca;
pub mod svcb;

pub use http::Listen;
