//! A client of the box's port, for tests and benches: requests as bytes, and one connection that stays.
//!
//! It knows of HTTP what the box answers with (a length, no chunks), so that what is measured is the box and what is
//! broken off is broken off at a known byte.

use std::io;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A call of an AWS protocol: `target` is `AWSStepFunctions.StartExecution`, `AmazonSQS.SendMessage` and the like.
pub fn aws(target: &str, body: &Value) -> Vec<u8> {
    let head = format!("POST / HTTP/1.1\r\ncontent-type: application/x-amz-json-1.0\r\nx-amz-target: {target}");
    request(&head, &body.to_string())
}

/// A call of the REST API; `path` is what follows `/api/v1`.
pub fn rest(method: &str, path: &str, body: &Value) -> Vec<u8> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    request(&format!("{method} /api/v1{path} HTTP/1.1\r\ncontent-type: application/json"), &body)
}

fn request(head: &str, body: &str) -> Vec<u8> {
    format!("{head}\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// What the box answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    body: Vec<u8>,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        self.status / 100 == 2
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// A connection that costs the machine as little as can be.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Fails while nobody listens.
    pub async fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, buffer: Vec::new() })
    }

    /// Sends a request and waits for its answer. Fails where the box hangs up first, as it does when it is killed.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.buffer[..end]).unwrap().to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap();
            let body = &self.buffer[end + 4..];
            if body.len() == length.trim().parse::<usize>().unwrap() {
                let status = head["http/1.1 ".len()..][..3].parse().unwrap();
                return Ok(Answer { status, body: body.to_vec() });
            }
        }
    }

    /// One call that must succeed.
    pub async fn call(&mut self, target: &str, body: &Value) -> Value {
        let answer = self.exchange(&aws(target, body)).await.unwrap();
        assert!(answer.is_success(), "{target} answered {}: {}", answer.status, answer.text());
        answer.json()
    }
}
