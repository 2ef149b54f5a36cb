//! What the targets share: the properties that the property tests check too, and a count of the memory that they take.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use shared::event::DialectName;

#[path = "../../tests/folds/properties.rs"]
mod properties;

/// The most memory that reading an input may take, for each of its bytes and beside them. An input is read several times at
/// once, and told in words to be compared.
const PER_BYTE: usize = 256;
const BESIDE: usize = 4 << 20;

#[global_allocator]
static COUNTING: Counting = Counting;

static TAKEN: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, and how much of it is taken.
struct Counting;

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let taken = TAKEN.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(taken, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that this asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are those that this asks for.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Reads an input: its first two bytes say how it is cut, the rest is the answer.
pub fn read(input: &[u8], property: impl Fn(&[u8], &[usize])) {
    let [first, second, body @ ..] = input else { return };
    let before = TAKEN.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    property(body, &[usize::from(*first % 64) + 1, usize::from(*second) + 1]);
    let most = MOST.load(Ordering::Relaxed).saturating_sub(before);
    assert!(most <= PER_BYTE * body.len() + BESIDE, "{most} bytes of memory for {} bytes", body.len());
}

/// What must hold of a fold.
pub fn fold(dialect: DialectName, input: &[u8]) {
    read(input, |body, sizes| properties::hold_of_a_fold(dialect, body, sizes));
}

/// What must hold of the reader of event streams.
pub fn sse(input: &[u8]) {
    read(input, properties::hold_of_the_reader);
}
