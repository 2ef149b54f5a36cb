//! Chaos tests: rounds of load with faults. Processes are killed and suspended, connections cut, events repeated; afterwards
//! the record must equal the clients' observations. The faults of a round depend on the round's seed alone.

pub mod cli;

pub mod plan;

pub mod clients;
pub mod invariants;
mod slot;
mod stream_faults;
pub mod testbed;
mod twin;

pub mod outage;
pub mod round;
