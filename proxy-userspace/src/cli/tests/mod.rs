//! The command line: how it is understood, and what it says of a daemon.

mod asked;
mod parsing;
