//! The stand-in LLM: OpenAI's chat completions on `STAND_IN_LISTEN` (127.0.0.1:9000). See `harness::upstream::stand_in`.

use std::process::ExitCode;
use std::sync::Arc;

use harness::upstream::ScriptServer;
use harness::upstream::stand_in::StandIn;
use shared::config::{EXIT_USAGE, Environment};
use shared::shutdown;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> ExitCode {
    let env = Environment::from_process();
    let stand_in = match StandIn::read(&env) {
        Ok(stand_in) => stand_in,
        Err(error) => {
            report(&error);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match serve(env.text("STAND_IN_LISTEN").unwrap_or("127.0.0.1:9000"), stand_in).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

async fn serve(listen: &str, stand_in: StandIn) -> std::io::Result<()> {
    let server = ScriptServer::start(TcpListener::bind(listen).await?, Arc::new(stand_in))?;
    announce(&server);
    shutdown::requested().await
}

/// Prints the listening address in the form of the services' logs, so that the harness reads one form.
#[expect(clippy::print_stdout, reason = "this line is the program's output")]
fn announce(server: &ScriptServer) {
    println!(r#"{{"message":"listening","address":"{}"}}"#, server.address());
}

#[expect(clippy::print_stderr, reason = "a program without logging tells its errors on standard error")]
fn report(error: &dyn std::error::Error) {
    eprintln!("stand-in-llm: {error}");
}
