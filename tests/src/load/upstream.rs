//! The upstream of a load run. Chat completions as cheap as possible, so that the cost of the proxy dominates.
//!
//! One thread and no HTTP library. The model name gives the number of chunks, the pause and the number of writes (see
//! [`Answer`]).

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use bytes::BytesMut;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::load::answer::{Answer, Writes};
use crate::load::chunked::{Chunked, Piece};
use crate::load::wire_format::{self, Events, Stamp};

const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n\
    x-request-id: req_7d1f0c3be5a94b2d\r\nopenai-processing-ms: 12\r\ntransfer-encoding: chunked\r\n\r\n";

/// Upper bounds of the request head, in bytes, and of the number of headers.
const MOST_HEAD: usize = 16 * 1024;
const MOST_HEADERS: usize = 64;

/// Serves connections until the process ends.
pub async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("accept")?;
        stream.set_nodelay(true)?;
        // A connection closed by the proxy is no error here: the load generator checks the answers.
        tokio::task::spawn_local(Connection::new(stream).run());
    }
}

/// Members of the request that the answer depends on.
#[derive(Debug, Deserialize)]
struct Asked {
    model: String,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

struct Connection {
    stream: TcpStream,
    input: BytesMut,
    output: Vec<u8>,
    events: Events,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self { stream, input: BytesMut::new(), output: Vec::new(), events: Events::new() }
    }

    async fn run(mut self) -> io::Result<()> {
        while let Some(body) = self.request().await? {
            let Ok(asked) = serde_json::from_slice::<Asked>(&body) else {
                self.refuse("400 Bad Request").await?;
                continue;
            };
            match asked.model.parse() {
                Ok(answer) if asked.stream => {
                    self.stream_answer(answer, asked.stream_options.is_some_and(|o| o.include_usage)).await?;
                }
                Ok(answer) => self.whole_answer(answer).await?,
                Err(_) => self.refuse("404 Not Found").await?,
            }
        }
        Ok(())
    }

    /// Reads the body of the next request. None after the client has closed the connection.
    async fn request(&mut self) -> io::Result<Option<BytesMut>> {
        let (head, framing) = loop {
            if let Some(found) = request_head(&self.input)? {
                break found;
            }
            self.input.reserve(4096);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Ok(None);
            }
        };
        let _ = self.input.split_to(head);
        match framing {
            Framing::Length(length) => {
                while self.input.len() < length {
                    self.read_more().await?;
                }
                Ok(Some(self.input.split_to(length)))
            }
            Framing::Chunked => {
                let (mut chunked, mut body) = (Chunked::default(), BytesMut::new());
                loop {
                    let mut rest = &self.input[..];
                    let piece = loop {
                        match chunked.next(&mut rest).map_err(io::Error::other)? {
                            Piece::Data(data) => body.extend_from_slice(data),
                            other => break other,
                        }
                    };
                    let used = self.input.len() - rest.len();
                    let ended = piece == Piece::End;
                    let _ = self.input.split_to(used);
                    if ended {
                        return Ok(Some(body));
                    }
                    self.read_more().await?;
                }
            }
        }
    }

    async fn read_more(&mut self) -> io::Result<()> {
        self.input.reserve(4096);
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn stream_answer(&mut self, answer: Answer, with_usage: bool) -> io::Result<()> {
        let (start, epoch) = (Instant::now(), wire_format::now());
        self.output.clear();
        self.output.extend_from_slice(STREAM_HEAD);
        for index in 0..answer.chunks {
            self.written(answer.writes).await?;
            let after = answer.pause * index;
            if index > 0 && !answer.pause.is_zero() {
                tokio::time::sleep_until(start + after).await;
            }
            let stamp = Stamp { due: epoch + nanos(after), sent: wire_format::now() };
            frame(&mut self.output, self.events.chunk(answer, index, stamp));
        }
        if with_usage {
            self.written(answer.writes).await?;
            frame(&mut self.output, &wire_format::usage_event(answer));
        }
        self.written(answer.writes).await?;
        frame(&mut self.output, wire_format::DONE);
        self.output.extend_from_slice(b"0\r\n\r\n");
        self.stream.write_all(&self.output).await
    }

    /// Writes the collected bytes, if chunks are written one by one.
    async fn written(&mut self, writes: Writes) -> io::Result<()> {
        if writes == Writes::Each {
            self.stream.write_all(&self.output).await?;
            self.output.clear();
        }
        Ok(())
    }

    async fn whole_answer(&mut self, answer: Answer) -> io::Result<()> {
        let body = wire_format::whole(answer);
        self.output.clear();
        write!(
            self.output,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_7d1f0c3be5a94b2d\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )?;
        self.output.extend_from_slice(&body);
        self.stream.write_all(&self.output).await
    }

    async fn refuse(&mut self, status: &str) -> io::Result<()> {
        let body = r#"{"error":{"message":"expected a chat completion with a model such as load-20x0","type":"invalid_request_error"}}"#;
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        self.stream.write_all(format!("{head}{body}").as_bytes()).await
    }
}

enum Framing {
    Length(usize),
    Chunked,
}

/// Length of the head and framing of the body, once the head is complete.
fn request_head(input: &[u8]) -> io::Result<Option<(usize, Framing)>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = request.parse(input).map_err(io::Error::other)? else {
        return if input.len() > MOST_HEAD { Err(io::Error::other("request head too long")) } else { Ok(None) };
    };
    let mut framing = Framing::Length(0);
    for header in &*request.headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).map_err(io::Error::other)?;
            framing = Framing::Length(text.trim().parse().map_err(io::Error::other)?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Chunked;
        }
    }
    Ok(Some((length, framing)))
}

/// Encodes a piece of a body in chunked transfer coding.
fn frame(output: &mut Vec<u8>, data: &[u8]) {
    // Writing to a vector cannot fail.
    let _ = write!(output, "{:x}\r\n", data.len());
    output.extend_from_slice(data);
    output.extend_from_slice(b"\r\n");
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
