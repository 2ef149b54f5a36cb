//! The load program: measures the gateway as a proxy of token streams, as ratios against yardsticks that it starts itself.
//!
//! `load compare` starts an upstream, a bare pass-through proxy, nginx if there is one, a broker and the gateway, each as a
//! child process; puts the same scenarios on all of them in turn; and reports medians over several rounds. Every stream is
//! checked to the byte and every chat of the gateway has to be on the record: a fast proxy that drops things is no use.

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

pub mod reads;

pub mod cli;
