//! Chaos: rounds of load during which everything is killed, paused, cut off and repeated, and after which the record must
//! still say exactly what the clients saw. A round is a function of its seed, as far as processes can be.

pub mod cli;

pub mod plan;

pub mod clients;
pub mod invariants;
mod slot;
mod stream_faults;
pub mod testbed;

pub mod outage;
pub mod round;
