//! Shared code of the fuzz targets: the properties of the property tests, and a bound on memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use shared::event::DialectName;

#[path = "../../tests/folds/properties.rs"]
mod properties;

/// The maximum memory for reading an input: per byte of input, and in addition. An input is read several times at once,
/// and the results are formatted for comparison.
const MAX_BYTES_PER_INPUT_BYTE: usize = 256;
const MAX_EXTRA_BYTES: usize = 4 << 20;

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

/// Checks the properties of a fold.
pub fn check_fold(dialect: DialectName, input: &[u8]) {
    with_memory_bound(input, |body, sizes| properties::check_fold(dialect, body, sizes));
}

/// Checks the properties of the SSE parser.
pub fn check_sse(input: &[u8]) {
    with_memory_bound(input, properties::check_parser);
}
