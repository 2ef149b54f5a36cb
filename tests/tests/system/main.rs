//! What the whole must do, on real servers: one behaviour a file.

mod accounts;
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
mod identities;
mod leases;
mod leaving;
mod live;
mod one_chat;
mod outages;
mod plans;
mod quarantine;
mod reads;
mod rebuild;
mod redelivery;
mod routes;
mod shutdown;
mod use_chat;
mod verify;
