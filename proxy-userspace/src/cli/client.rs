//! Asking the daemon: HTTP over its unix socket.
//!
//! Owns what a person is told when the daemon cannot be reached. Must never
//! show a reply as anything but what the daemon said.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::admin::body::gather;
use crate::admin::problem::{PROBLEM_JSON, Problem};
use crate::admin::socket::observer_beside;

/// How long the daemon may take to answer. An apply may wait behind others.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// The longest answer that is read: a node's whole configuration fits many times.
const ANSWER_MAX: usize = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// No socket, or nobody behind it.
    #[error(
        "weir is not running: no socket answers at {0}; start it with `weir run`, or name its socket with --admin-socket"
    )]
    NotRunning(PathBuf),
    /// The socket is for somebody else.
    #[error("permission denied: the admin socket {0} is for root")]
    Permission(PathBuf),
    /// No answer in time.
    #[error("weir did not answer on {path} within {} s; it may hang: see its log", ANSWER_TIMEOUT.as_secs())]
    Timeout {
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke.
    #[error("{path}: {what}; did weir stop meanwhile?")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What happened.
        what: String,
    },
    /// The answer is not what this version of the command line knows.
    #[error(
        "{path}: this answer cannot be understood ({what}); are `weir` and the daemon of one version?"
    )]
    Unclear {
        /// The socket.
        path: PathBuf,
        /// What was wrong with it.
        what: String,
    },
    /// The daemon said no.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
}

/// A path with its query.
#[derive(Clone, Debug)]
pub(super) struct Query(String);

impl Query {
    /// The path alone.
    pub(super) fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// Adds a parameter if it has a value.
    pub(super) fn with(mut self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        if let Some(value) = value {
            let mut pair = form_urlencoded::Serializer::new(String::new());
            pair.append_pair(name, value.as_ref());
            self.0.push(if self.0.contains('?') { '&' } else { '?' });
            self.0.push_str(&pair.finish());
        }
        self
    }
}

/// What is sent along.
#[derive(Debug)]
pub(super) struct Body {
    /// Its media type.
    pub(super) media_type: &'static str,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
}

/// One daemon.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// A client for the daemon at `socket`. Nothing is opened yet.
    pub(super) fn new(socket: &Path) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            socket: socket.to_path_buf(),
            runtime,
        })
    }

    /// Asks for JSON.
    pub(super) fn get<T: DeserializeOwned>(&self, query: Query) -> Result<T, ClientError> {
        self.understand(&self.ask(Method::GET, query, None)?)
    }

    /// Asks for text.
    pub(super) fn get_text(&self, query: Query) -> Result<String, ClientError> {
        let bytes = self.ask(Method::GET, query, None)?;
        String::from_utf8(bytes.into()).map_err(|error| self.unclear(&error))
    }

    /// Changes something; the answer is JSON.
    pub(super) fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        query: Query,
        body: Option<Body>,
    ) -> Result<T, ClientError> {
        self.understand(&self.ask(method, query, body)?)
    }

    /// Hands on each piece of an endless answer until `each` has enough (`false`) or the daemon ends it.
    pub(super) fn follow(
        &self,
        query: Query,
        mut each: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), ClientError> {
        self.runtime.block_on(async {
            let mut response = self.request(Method::GET, query, None).await?;
            while let Some(frame) = response.body_mut().frame().await {
                let frame = frame.map_err(|error| self.broken(&error))?;
                if let Some(data) = frame.data_ref()
                    && !each(data)
                {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Asks, and gives the answer as it came: [`Self::understand`] makes sense of it.
    pub(super) fn ask(
        &self,
        method: Method,
        query: Query,
        body: Option<Body>,
    ) -> Result<Bytes, ClientError> {
        self.runtime.block_on(async {
            let asked = async {
                let response = self.request(method, query, body).await?;
                self.collect(response).await
            };
            match timeout(ANSWER_TIMEOUT, asked).await {
                Ok(answer) => answer,
                Err(_) => Err(ClientError::Timeout {
                    path: self.socket.clone(),
                }),
            }
        })
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let bytes = gather(response.into_body(), ANSWER_MAX).await;
        bytes
            .map(Bytes::from)
            .map_err(|error| self.broken(error.as_ref()))
    }

    /// Sends one request; a reply that is an error becomes one here.
    async fn request(
        &self,
        method: Method,
        query: Query,
        body: Option<Body>,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = self.connect(method == Method::GET).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
        // Ends with the connection; what goes wrong there is seen by the request as well.
        tokio::spawn(async { connection.await.ok() });
        let mut request = Request::builder()
            .method(method)
            .uri(query.0)
            .header(HOST, "weir");
        let mut bytes = Vec::new();
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, body.media_type);
            bytes = body.bytes;
        }
        let request = request
            .body(Full::new(Bytes::from(bytes)))
            .map_err(|error| self.broken(&error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let media_type = response.headers().get(CONTENT_TYPE).cloned();
        let bytes = self.collect(response).await?;
        if media_type.is_none_or(|media_type| media_type != PROBLEM_JSON) {
            return Err(self.unclear(&format!("status {status} without problem details")));
        }
        Err(ClientError::Refused(Box::new(self.understand(&bytes)?)))
    }

    /// Opens the admin socket; to look only, the observers' one will do.
    async fn connect(&self, to_look: bool) -> Result<UnixStream, ClientError> {
        let mut result = UnixStream::connect(&self.socket).await;
        let denied = |result: &io::Result<UnixStream>| matches!(result, Err(error) if error.kind() == io::ErrorKind::PermissionDenied);
        if to_look && denied(&result) {
            result = UnixStream::connect(observer_beside(&self.socket)).await;
        }
        result.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning(self.socket.clone())
            }
            io::ErrorKind::PermissionDenied => ClientError::Permission(self.socket.clone()),
            _ => self.broken(&error),
        })
    }

    /// Reads an answer, which may go on standing where it does.
    pub(super) fn understand<'b, T: Deserialize<'b>>(
        &self,
        bytes: &'b [u8],
    ) -> Result<T, ClientError> {
        serde_json::from_slice(bytes).map_err(|error| self.unclear(&error))
    }

    fn broken(&self, error: &(impl std::error::Error + ?Sized)) -> ClientError {
        ClientError::Broken {
            path: self.socket.clone(),
            what: error.to_string(),
        }
    }

    fn unclear(&self, what: &impl ToString) -> ClientError {
        ClientError::Unclear {
            path: self.socket.clone(),
            what: what.to_string(),
        }
    }
}
