//! What the whole must do, on real servers: one behaviour a file.

mod bad_input;
mod broker_edges;
mod callers;
mod clients;
mod connections;
mod conversations;
mod counting;
mod dialects;
mod failures;
mod idempotency;
mod journal;
mod leases;
mod leaving;
mod one_chat;
mod outages;
mod quarantine;
mod rebuild;
mod redelivery;
mod routes;
mod shutdown;
mod use_chat;
mod verify;
