//! What the targets share: the properties that the property tests check too, and a count of the memory that they take.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use shared::event::DialectName;

#[path = "../../tests/folds/properties.rs"]
mod properties;

/// The most memory that reading an input may take, for each of its bytes and beside them. An input is read several times at
/// once, and told in words to be compared.
const MAX_BYTES_PER_INPUT_BYTE: usize = 256;
const MAX_EXTRA_BYTES: usize = 4 << 20;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, and how much of it is taken.
struct CountingAllocator;

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let allocated = ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(allocated, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that this asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are those that this asks for.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Reads an input: its first two bytes say how it is cut, the rest is the answer.
pub fn with_memory_bound(input: &[u8], property: impl Fn(&[u8], &[usize])) {
    let [first, second, body @ ..] = input else { return };
    let before = ALLOCATED.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    property(body, &[usize::from(*first % 64) + 1, usize::from(*second) + 1]);
    let peak = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    assert!(
        peak <= MAX_BYTES_PER_INPUT_BYTE * body.len() + MAX_EXTRA_BYTES,
        "{peak} bytes of memory for {} bytes",
        body.len()
    );
}

/// What must hold of a fold.
pub fn check_fold(dialect: DialectName, input: &[u8]) {
    with_memory_bound(input, |body, sizes| properties::check_fold(dialect, body, sizes));
}

/// What must hold of the reader of event streams.
pub fn check_sse(input: &[u8]) {
    with_memory_bound(input, properties::check_parser);
}
