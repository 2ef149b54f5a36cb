//! Shared code of the fuzz targets: the properties of the property tests, and a bound on memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use shared::event::DialectName;

#[path = "../../tests/folds/properties.rs"]
mod properties;

#[path = "../../tests/requests/properties.rs"]
mod requests;

/// The maximum memory for reading an input: per byte of input, and in addition. An input is read several times at once,
/// and the results are formatted for comparison.
const MAX_BYTES_PER_INPUT_BYTE: usize = 256;
const MAX_EXTRA_BYTES: usize = 4 << 20;

/// The window of the Brotli decoder, which a body chooses, in bytes: up to 16 MiB, and room for the decoded bytes.
const MAX_DECODER_BYTES: usize = 48 << 20;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system allocator with a count of allocated bytes.
struct CountingAllocator;

// SAFETY: every call is passed on to the system allocator.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let allocated = ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(allocated, Ordering::Relaxed);
        // SAFETY: the caller guarantees the conditions of `System.alloc`, which are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller guarantees the conditions of `System.dealloc`, which are the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Checks a property of an input and the memory used. The first two bytes give the sizes of the pieces, the rest is the
/// body.
pub fn with_memory_bound(input: &[u8], property: impl Fn(&[u8], &[usize])) {
    with_extra_memory(input, MAX_EXTRA_BYTES, property);
}

fn with_extra_memory(input: &[u8], extra_bytes: usize, property: impl Fn(&[u8], &[usize])) {
    let [first, second, body @ ..] = input else { return };
    let before = ALLOCATED.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    property(body, &[usize::from(*first % 64) + 1, usize::from(*second) + 1]);
    let peak = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    assert!(
        peak <= MAX_BYTES_PER_INPUT_BYTE * body.len() + extra_bytes,
        "{peak} bytes of memory for {} bytes",
        body.len()
    );
}

/// Checks the properties of a fold.
pub fn check_fold(dialect: DialectName, input: &[u8]) {
    with_memory_bound(input, |body, sizes| properties::check_fold(dialect, body, sizes));
}

/// Checks the properties of the SSE parser.
pub fn check_sse(input: &[u8]) {
    with_memory_bound(input, properties::check_parser);
}

/// Checks the reading and forwarding of a chat's request.
pub fn check_request(input: &[u8]) {
    with_memory_bound(input, |body, sizes| requests::check_request(body, sizes[0]));
}

/// Checks the conversion of a `useChat` request.
pub fn check_ui_message(input: &[u8]) {
    with_memory_bound(input, |body, _| requests::check_ui_message(body));
}

/// Checks the editing of JSON, and broken text in JSON.
pub fn check_json_edit(input: &[u8]) {
    with_memory_bound(input, |body, _| requests::check_json_edit(body));
}

/// Checks the decoders of compressed request bodies.
pub fn check_body_decoder(input: &[u8]) {
    with_extra_memory(input, MAX_DECODER_BYTES, |body, sizes| requests::check_body_decoder(body, sizes[0]));
}
