//! A connection of the load generator. HTTP/1.1 without a client library, because a library costs more CPU than some of the
//! measured proxies.

use std::io;
use std::net::SocketAddr;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::load::answer::Answer;
use crate::load::chunked::{Chunked, Piece};
use crate::load::stream_check::{Expected, Incomplete, StreamCheck, UsageChunk};
use crate::load::wire_format::{self, Stamp};

const MOST_HEADERS: usize = 64;

/// The request of a run, composed once and sent unchanged.
#[derive(Debug)]
pub struct Request {
    bytes: Vec<u8>,
    expected: Option<Expected>,
    reply: Reply,
}

/// Form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A stream of server-sent events.
    Stream,
    /// A single JSON body.
    Whole,
}

/// Address and credentials of a target.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Address of the socket.
    pub address: SocketAddr,
    /// Value of the `Host` header.
    pub host: String,
    /// Path of chat completions.
    pub path: String,
    /// Bearer token, if the target needs one.
    pub token: Option<String>,
}

impl Request {
    /// Composes a request to `endpoint` for an answer of `model`. Streams of the load upstream's models are checked to the
    /// byte.
    pub fn new(endpoint: &Endpoint, model: &str, reply: Reply, usage: UsageChunk) -> Self {
        let stream = reply == Reply::Stream;
        let options = match usage {
            UsageChunk::Asked => r#","stream_options":{"include_usage":true}"#,
            UsageChunk::NotAsked => "",
        };
        let body = format!(
            r#"{{"messages":[{{"role":"system","content":"You are a concise and careful assistant."}},{{"role":"user","content":"In two sentences: what does an event-sourced system gain by keeping its log apart from the tables that are projected from it?"}}],"model":"{model}","temperature":0.7,"stream":{stream}{options}}}"#
        );
        let Endpoint { host, path, .. } = endpoint;
        let authorization =
            endpoint.token.as_ref().map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let bytes = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\n{authorization}user-agent: stenograph-load\r\naccept: */*\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let expected = model.parse::<Answer>().ok().map(|answer| Expected::of(answer, usage));
        Self { bytes: bytes.into_bytes(), expected, reply }
    }
}

/// Failure of a chat.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The connection could not be opened, or was broken.
    #[error("connection: {0}")]
    Connection(#[from] io::Error),
    /// The response is no HTTP of the expected form.
    #[error("response: expected {0}")]
    Response(&'static str),
    /// The status of the response is not 200.
    #[error("status {status}: {body}")]
    Status {
        /// Status of the response.
        status: u16,
        /// Start of the body of the response.
        body: String,
    },
    /// The stream was cut, or differs from the expected stream.
    #[error(transparent)]
    Incomplete(#[from] Incomplete),
    /// No byte arrived within the time limit.
    #[error("not finished in time")]
    Late,
}

/// Times of a chat.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Arrival of the first byte of the body.
    pub first_byte: Instant,
    /// Arrival of the last byte of the body.
    pub finished: Instant,
}

/// Times of a chunk.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Due time and time of sending, from the chunk.
    pub stamp: Stamp,
    /// Time of arrival, on the same clock.
    pub received: u64,
}

/// A keep-alive connection to a target.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    input: BytesMut,
}

#[derive(Debug)]
enum Body {
    Length(usize),
    Chunked(Chunked),
}

impl Connection {
    /// Opens a TCP connection to the address.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: BytesMut::new() })
    }

    /// Sends the request, and reads and checks the response to the last byte.
    pub async fn chat(&mut self, request: &Request, on_chunk: &mut impl FnMut(Arrival)) -> Result<Reading, ChatError> {
        self.stream.write_all(&request.bytes).await?;
        let (status, mut body) = self.head().await?;
        let mut check = StreamCheck::default();
        let mut first_byte = None;
        let mut excerpt = Vec::new();
        loop {
            let received = wire_format::now();
            let mut rest = &self.input[..];
            let ended = loop {
                match body.next(&mut rest)? {
                    Piece::Data(data) => {
                        first_byte.get_or_insert_with(Instant::now);
                        if status != 200 {
                            excerpt.extend_from_slice(&data[..data.len().min(300)]);
                        } else if request.reply == Reply::Stream {
                            check.feed(data, &mut |stamp| on_chunk(Arrival { stamp, received }));
                        }
                    }
                    Piece::NeedMore => break false,
                    Piece::End => break true,
                }
            };
            let used = self.input.len() - rest.len();
            self.input.advance(used);
            if ended {
                break;
            }
            self.read_more().await?;
        }
        if status != 200 {
            excerpt.truncate(300);
            return Err(ChatError::Status { status, body: String::from_utf8_lossy(&excerpt).into_owned() });
        }
        if request.reply == Reply::Stream {
            check.judge(request.expected)?;
        }
        let finished = Instant::now();
        Ok(Reading { first_byte: first_byte.ok_or(ChatError::Response("a body"))?, finished })
    }

    async fn head(&mut self) -> Result<(u16, Body), ChatError> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(length) =
                response.parse(&self.input).map_err(|_| ChatError::Response("an HTTP/1.1 head"))?
            {
                let status = response.code.ok_or(ChatError::Response("a status"))?;
                let body = body_framing(response.headers)?;
                self.input.advance(length);
                return Ok((status, body));
            }
            self.read_more().await?;
        }
    }

    async fn read_more(&mut self) -> io::Result<()> {
        self.input.reserve(8 * 1024);
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the answer was complete")),
            _ => Ok(()),
        }
    }
}

impl Body {
    fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Piece<'a>, ChatError> {
        match self {
            Self::Chunked(chunked) => chunked.next(input).map_err(|_| ChatError::Response("chunked transfer coding")),
            Self::Length(0) => Ok(Piece::End),
            Self::Length(_) if input.is_empty() => Ok(Piece::NeedMore),
            Self::Length(left) => {
                let (data, rest) = input.split_at((*left).min(input.len()));
                *input = rest;
                *left -= data.len();
                Ok(Piece::Data(data))
            }
        }
    }
}

fn body_framing(headers: &[httparse::Header<'_>]) -> Result<Body, ChatError> {
    for header in headers {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok(Body::Chunked(Chunked::default()));
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = std::str::from_utf8(header.value).ok().and_then(|text| text.trim().parse().ok());
            return length.map(Body::Length).ok_or(ChatError::Response("a content length"));
        }
    }
    Err(ChatError::Response("content-length or transfer-encoding"))
}
