//! The harness itself: that servers come back with what they had, and that wires do what the test says.

mod servers;
mod wires;
