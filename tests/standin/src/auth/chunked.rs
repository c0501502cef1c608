//! Decoder of aws-chunked bodies (the `STREAMING-*` payloads). Chunk signatures and trailer checksums are
//! read over: the stand-in checks none of them.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::error::{S3Error, S3Result};

/// One chunk may not be larger than this.
const MAX_CHUNK: usize = 8 * 1024 * 1024;
const MAX_HEADER: usize = 256;

enum State {
    Header,
    Data(usize),
    DataEnd,
    Trailer,
    Done,
}

/// Takes wire bytes, gives payload bytes.
pub struct ChunkDecoder {
    state: State,
    pending: BytesMut,
}

impl ChunkDecoder {
    pub fn new() -> Self {
        Self { state: State::Header, pending: BytesMut::new() }
    }

    /// Whether `x-amz-content-sha256` announces such a body.
    pub fn applies(content_sha: &str) -> bool {
        content_sha.starts_with("STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
            || content_sha.starts_with("STREAMING-UNSIGNED-PAYLOAD")
    }

    /// Decodes what `input` completes, appending payload pieces to `output`.
    pub fn push(&mut self, input: &[u8], output: &mut Vec<Bytes>) -> S3Result<()> {
        self.pending.extend_from_slice(input);
        while self.step(output)? {}
        Ok(())
    }

    /// To be called at the end of the body: complains about what is missing.
    pub fn finish(&self) -> S3Result<()> {
        match self.state {
            State::Done => Ok(()),
            State::Header if self.pending.is_empty() => Err(S3Error::invalid_request("Missing final chunk")),
            State::Header => Err(S3Error::invalid_request("Incomplete chunk header")),
            State::Data(_) | State::DataEnd => Err(S3Error::invalid_request("Incomplete chunk data")),
            State::Trailer => Err(S3Error::invalid_request("Incomplete trailer section")),
        }
    }

    fn step(&mut self, output: &mut Vec<Bytes>) -> S3Result<bool> {
        match self.state {
            State::Header => self.header(),
            State::Data(left) => {
                let take = left.min(self.pending.len());
                if take == 0 && left > 0 {
                    return Ok(false);
                }
                if take > 0 {
                    output.push(self.pending.split_to(take).freeze());
                }
                self.state = if take == left { State::DataEnd } else { State::Data(left - take) };
                Ok(true)
            }
            State::DataEnd => {
                if self.pending.len() < 2 {
                    return Ok(false);
                }
                if &self.pending[..2] != b"\r\n" {
                    return Err(S3Error::invalid_request("Invalid chunk footer"));
                }
                self.pending.advance(2);
                self.state = State::Header;
                Ok(true)
            }
            State::Trailer => {
                // The last chunk is followed by trailer lines, if any, and an empty line.
                let ended = self.pending.starts_with(b"\r\n")
                    || self.pending.windows(4).any(|window| window == b"\r\n\r\n");
                if ended {
                    self.state = State::Done;
                }
                Ok(false)
            }
            State::Done => {
                self.pending.clear();
                Ok(false)
            }
        }
    }

    fn header(&mut self) -> S3Result<bool> {
        let Some(end) = self.pending.windows(2).position(|window| window == b"\r\n") else {
            if self.pending.len() > MAX_HEADER {
                return Err(S3Error::invalid_request("Chunk header too long"));
            }
            return Ok(false);
        };
        let line = self.pending.split_to(end + 2);
        let text = String::from_utf8_lossy(&line[..end]);
        let size = text.split(';').next().unwrap_or_default().trim();
        let size =
            usize::from_str_radix(size, 16).map_err(|_| S3Error::invalid_request("Invalid chunk size"))?;
        if size > MAX_CHUNK {
            return Err(S3Error::new(413, "EntityTooLarge", format!("The chunk exceeded {MAX_CHUNK}")));
        }
        self.state = if size == 0 { State::Trailer } else { State::Data(size) };
        Ok(true)
    }
}
