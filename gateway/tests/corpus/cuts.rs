//! The ways to cut a body into chunks: the network may cut at any position.

/// The number of ways to cut a body.
pub(crate) const COUNT: usize = 5;

/// Cuts the body: whole, in lines, in bytes, in pieces of random sizes (seeded by the name), and in two halves.
pub(crate) fn all<'a>(name: &str, body: &'a [u8]) -> [(&'static str, Vec<&'a [u8]>); COUNT] {
    let halves = body.split_at(body.len() / 2);
    [
        ("whole", vec![body]),
        ("in lines", body.split_inclusive(|byte| *byte == b'\n').collect()),
        ("in bytes", body.chunks(1).collect()),
        ("at random", at_random(name, body)),
        ("in halves", vec![halves.0, halves.1]),
    ]
}

fn at_random<'a>(name: &str, mut body: &'a [u8]) -> Vec<&'a [u8]> {
    let mut state = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut pieces = Vec::new();
    while !body.is_empty() {
        // xorshift64: random enough for cutting, and the same on every machine.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let size = usize::try_from(state % 97).unwrap() + 1;
        let (piece, rest) = body.split_at(size.min(body.len()));
        pieces.push(piece);
        body = rest;
    }
    pieces
}
