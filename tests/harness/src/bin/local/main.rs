//! The program behind `deploy/local.sh`: a private deployment on one machine of nats-server, PostgreSQL, the recorder, the
//! recorder's API, the gateway and, without an LLM provider, the stand-in LLM. The program starts and stops the services, shows
//! states and logs, and deletes the data.

mod failure;
mod output;

mod directory;
mod service;

mod environment;
mod lock;
mod ports;
mod process;
mod readiness;
mod secrets;
mod settings_file;

mod programs;
mod provider;

mod deployment;
mod nats;
mod postgres;
mod recorder;
mod services;

mod welcome;

mod down;
mod logs;
mod reset;
mod signals;
mod status;
mod up;

mod cli;

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match cli::run(&arguments).await {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
