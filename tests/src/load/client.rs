//! One connection of the load generator: HTTP/1.1 by hand over a socket, because a client library costs more CPU than some
//! of the proxies that are measured here.

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

/// What the requests of a run are: composed once, sent as they are.
#[derive(Debug)]
pub struct Request {
    bytes: Vec<u8>,
    expected: Option<Expected>,
    reply: Reply,
}

/// How the answer is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// As a stream of events.
    Stream,
    /// In one piece.
    Whole,
}

/// Where and as whom to ask.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The socket.
    pub address: SocketAddr,
    /// The `Host` header.
    pub host: String,
    /// The path of chat completions.
    pub path: String,
    /// The bearer token, if one is needed.
    pub token: Option<String>,
}

impl Request {
    /// Asks `endpoint` for an answer of `model`. Where the model is one of the load upstream's, the stream is checked to the
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

/// Why a chat did not count.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The connection failed.
    #[error("connection: {0}")]
    Connection(#[from] io::Error),
    /// The answer is not HTTP as expected.
    #[error("response: expected {0}")]
    Response(&'static str),
    /// Another status than 200.
    #[error("status {status}: {body}")]
    Status {
        /// What it was.
        status: u16,
        /// The start of what was said about it.
        body: String,
    },
    /// The stream was cut, or is not what was asked for.
    #[error(transparent)]
    Incomplete(#[from] Incomplete),
    /// Nothing for too long.
    #[error("not finished in time")]
    Late,
}

/// When what happened to a chat.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The first byte of the body was there.
    pub first_byte: Instant,
    /// The whole body was there.
    pub finished: Instant,
}

/// A chunk that has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When it was due and when it was sent.
    pub stamp: Stamp,
    /// When it was read here, on the same clock.
    pub received: u64,
}

/// A kept-alive connection.
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
    /// Connects.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: BytesMut::new() })
    }

    /// One chat, from the request to the last byte of the answer, which is checked.
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
