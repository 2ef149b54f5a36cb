//! Decoder of the chunked transfer coding. Decodes in place: the load program copies no body to read the body.

/// Decoder of one chunked body, with the state between two reads.
#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    SizeStart,
    Size(usize),
    /// Behind the size of a chunk, before the end of the line.
    SizeRest(usize),
    Data(usize),
    /// Behind the data of a chunk, before the end of the line.
    DataEnd,
    /// At the start of a trailer line, or of the empty line at the end of the body.
    TrailerStart,
    TrailerRest,
    End,
}

/// The next piece of the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Part of the decoded body.
    Data(&'a [u8]),
    /// No further piece in the input so far.
    NeedMore,
    /// The end of the body.
    End,
}

/// Error of a body that is not in chunked transfer coding.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected chunked transfer coding")]
pub struct NotChunked;

impl Chunked {
    /// Removes the next piece from the front of `input`.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Piece<'a>, NotChunked> {
        loop {
            match self.state {
                State::End => return Ok(Piece::End),
                State::Data(left) if !input.is_empty() => {
                    let (data, rest) = input.split_at(left.min(input.len()));
                    *input = rest;
                    self.state = if data.len() == left { State::DataEnd } else { State::Data(left - data.len()) };
                    return Ok(Piece::Data(data));
                }
                _ => {}
            }
            let Some((&byte, rest)) = input.split_first() else { return Ok(Piece::NeedMore) };
            *input = rest;
            self.state = self.framing(byte)?;
        }
    }

    fn framing(&self, byte: u8) -> Result<State, NotChunked> {
        Ok(match (&self.state, byte) {
            (State::SizeStart, _) => State::Size(digit(byte)?),
            (&State::Size(size) | &State::SizeRest(size), b'\n') => {
                if size == 0 {
                    State::TrailerStart
                } else {
                    State::Data(size)
                }
            }
            (&State::Size(size), b'\r' | b';' | b' ') | (&State::SizeRest(size), _) => State::SizeRest(size),
            (&State::Size(size), _) => State::Size(size.checked_mul(16).ok_or(NotChunked)? + digit(byte)?),
            (State::DataEnd, b'\r') => State::DataEnd,
            (State::DataEnd, b'\n') => State::SizeStart,
            (State::TrailerStart, b'\r') => State::TrailerStart,
            (State::TrailerStart, b'\n') => State::End,
            (State::TrailerStart | State::TrailerRest, _) if byte != b'\n' => State::TrailerRest,
            (State::TrailerRest, _) => State::TrailerStart,
            _ => return Err(NotChunked),
        })
    }
}

fn digit(byte: u8) -> Result<usize, NotChunked> {
    char::from(byte).to_digit(16).map(|digit| digit as usize).ok_or(NotChunked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(parts: &[&[u8]]) -> Result<(Vec<u8>, bool), NotChunked> {
        let mut chunked = Chunked::default();
        let mut body = Vec::new();
        for part in parts {
            let mut input = *part;
            loop {
                match chunked.next(&mut input)? {
                    Piece::Data(data) => body.extend_from_slice(data),
                    Piece::NeedMore => break,
                    Piece::End => return Ok((body, true)),
                }
            }
        }
        Ok((body, false))
    }

    #[test]
    fn any_split_decodes_alike() {
        let wire = b"5;x=1\r\nhello\r\n1A\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nx-trailer: 1\r\n\r\n";
        let whole = decode(&[wire]).unwrap();
        assert_eq!(whole, (b"helloabcdefghijklmnopqrstuvwxyz".to_vec(), true));
        for at in 0..wire.len() {
            assert_eq!(decode(&[&wire[..at], &wire[at..]]).unwrap(), whole, "split at {at}");
            assert!(!decode(&[&wire[..at]]).unwrap().1, "a body cut at {at} must not count as ended");
        }
        assert_eq!(decode(&[b"zz\r\n"]), Err(NotChunked));
    }
}
