//! The coalescer: joins pieces that are ready at the same time into one chunk for the client.
//!
//! A single piece passes without a copy. Several pieces are copied into one chunk: for pieces of a few hundred bytes, the
//! copy costs less than the bookkeeping for separate chunks in the server and in the kernel.

use bytes::Bytes;

/// The pieces that are ready for the client, in order.
#[derive(Debug, Default)]
pub(super) struct Coalescer {
    pieces: Vec<Bytes>,
    bytes: usize,
}

impl Coalescer {
    /// Appends a piece. Empty pieces are ignored.
    pub(super) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.bytes += piece.len();
            self.pieces.push(piece);
        }
    }

    /// Returns the total size of all pieces in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes all pieces as one chunk. Returns `None` if there are none.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        let bytes = std::mem::take(&mut self.bytes);
        if self.pieces.len() <= 1 {
            return self.pieces.pop();
        }
        let mut whole = Vec::with_capacity(bytes);
        for piece in self.pieces.drain(..) {
            whole.extend_from_slice(&piece);
        }
        // Bursts of many pieces are rare and streams are long, so spare capacity is freed.
        self.pieces.shrink_to(4);
        Some(whole.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_joined_in_order() {
        let mut coalescer = Coalescer::default();
        assert_eq!(coalescer.take(), None);
        for piece in ["a", "", "bc", "d"] {
            coalescer.push(Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!(coalescer.bytes(), 4);
        assert_eq!(coalescer.take().as_deref(), Some(&b"abcd"[..]));
        assert_eq!((coalescer.bytes(), coalescer.take()), (0, None));
    }

    #[test]
    fn a_single_piece_is_not_copied() {
        let piece = Bytes::from(vec![b'x'; 300]);
        let mut coalescer = Coalescer::default();
        coalescer.push(piece.clone());
        assert_eq!(coalescer.take().map(|taken| taken.as_ptr()), Some(piece.as_ptr()));
    }
}
