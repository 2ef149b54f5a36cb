//! The load program: measures the gateway as a proxy of token streams, as ratios to reference proxies of the same run.
//!
//! `load compare` starts an upstream, a bare pass-through proxy, nginx if installed, a broker and the gateway, each as a child
//! process; runs the same scenarios on all of these targets in turn; and reports medians over several rounds. Each stream is
//! checked to the byte, and each chat through the gateway has to be on the record, because the speed of a proxy that loses data
//! means nothing.

pub mod answer;
pub mod wire_format;

pub mod chunked;
pub mod stream_check;

pub mod client;
pub mod upstream;

pub mod passthrough;

pub mod cores;
pub mod pacer;
pub mod process_meter;

pub mod scenario;

pub mod keys;
pub mod record;
pub mod targets;

pub mod compare;
pub mod goal;
pub mod report;
pub mod summary;

pub mod fairness;
pub mod reads;

pub mod cli;
