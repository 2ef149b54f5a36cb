//! The gateway's executable: parses the command line, reads the settings, and runs or only checks the gateway.

use std::process::ExitCode;

use shared::config::{ConfigError, EXIT_USAGE, Environment};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
The gateway of Stenograph: proxies LLM chat streams and records every chat.

Usage: gateway [check-config | health | --help | --version]

check-config reads the settings and the routes file, reports mistakes, and does not start the gateway.
health asks the gateway at GATEWAY_HEALTH_LISTEN for its readiness. The exit status is 0 if it is ready, otherwise 1.

It is configured by environment variables; deploy/gateway.env lists them.
";

fn main() -> ExitCode {
    shared::core_dumps::forbid();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let only_check = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["check-config"] => true,
        ["health"] => return health(),
        ["--help" | "-h"] => return print(std::io::stdout(), USAGE, ExitCode::SUCCESS),
        ["--version" | "-V"] => {
            return print(std::io::stdout(), concat!("gateway ", env!("CARGO_PKG_VERSION"), "\n"), ExitCode::SUCCESS);
        }
        _ => return print(std::io::stderr(), USAGE, ExitCode::from(EXIT_USAGE)),
    };
    let config = match gateway::config::Config::read(&Environment::from_process()) {
        Ok(config) => config,
        Err(error) => {
            return print(std::io::stderr(), &format!("gateway: {error}\n"), ExitCode::from(EXIT_USAGE));
        }
    };
    if only_check {
        return match gateway::check(&config) {
            Ok(found) => print(std::io::stdout(), &format!("{found}\n"), ExitCode::SUCCESS),
            Err(error) => print(std::io::stderr(), &format!("gateway: {error:#}\n"), ExitCode::from(EXIT_USAGE)),
        };
    }
    match gateway::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = if error.is::<ConfigError>() { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE };
            print(std::io::stderr(), &format!("gateway: {error:#}\n"), code)
        }
    }
}

/// Checks the readiness of the gateway that runs with this environment.
fn health() -> ExitCode {
    let listen = match gateway::config::health_listen(&Environment::from_process()) {
        Ok(listen) => listen,
        Err(error) => {
            return print(std::io::stderr(), &format!("gateway: {error}\n"), ExitCode::from(EXIT_USAGE));
        }
    };
    match gateway::check_health(listen) {
        Ok(()) => print(std::io::stdout(), "ready\n", ExitCode::SUCCESS),
        Err(error) => print(std::io::stderr(), &format!("gateway: {error:#}\n"), ExitCode::FAILURE),
    }
}

fn print(mut to: impl std::io::Write, text: &str, code: ExitCode) -> ExitCode {
    // A write that fails is ignored, because there is no other place to report to.
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
    code
}
