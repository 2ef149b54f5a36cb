//! The command line of the program. The text for people is in `deploy/local.sh help`.

use std::path::PathBuf;

use crate::directory::Directory;
use crate::failure::{Failure, Outcome};
use crate::reset::Consent;
use crate::service::Service;
use crate::{down, logs, reset, status, up};

/// A command and the options of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Up(up::Options),
    Down,
    Status,
    Logs(logs::Options),
    Reset(Consent),
}

/// Parses and runs `--directory DIRECTORY COMMAND [OPTION]...`.
pub(crate) async fn run(arguments: &[String]) -> Outcome {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ["--directory", directory, rest @ ..] = arguments.as_slice() else {
        return Err(Failure::Usage("expected --directory DIRECTORY before the command: run deploy/local.sh".into()));
    };
    let command = parse(rest).map_err(Failure::Usage)?;
    let directory = Directory::new(PathBuf::from(directory));
    match command {
        Command::Up(options) => up::up(&directory, options).await,
        Command::Down => down::down(&directory).await,
        Command::Status => status::status(&directory).await,
        Command::Logs(options) => logs::logs(&directory, options),
        Command::Reset(consent) => reset::reset(&directory, consent).await,
    }
}

fn parse(arguments: &[&str]) -> Result<Command, String> {
    let Some((name, options)) = arguments.split_first() else { return Err("a command is missing".into()) };
    match *name {
        "up" => parse_up(options).map(Command::Up),
        "logs" => parse_logs(options).map(Command::Logs),
        "reset" => match options {
            [] => Ok(Command::Reset(Consent::Ask)),
            ["--yes"] => Ok(Command::Reset(Consent::Given)),
            [unknown] => Err(format!("reset has no option {unknown}")),
            _ => Err("reset: too many arguments".into()),
        },
        "down" | "status" if !options.is_empty() => Err(format!("{name} takes no arguments")),
        "down" => Ok(Command::Down),
        "status" => Ok(Command::Status),
        unknown => Err(format!("there is no command {unknown}")),
    }
}

fn parse_up(options: &[&str]) -> Result<up::Options, String> {
    let mut parsed = up::Options::default();
    for option in options {
        match *option {
            "-d" => parsed.detached = true,
            "--release" => parsed.release = true,
            unknown => return Err(format!("up has no option {unknown}")),
        }
    }
    Ok(parsed)
}

fn parse_logs(options: &[&str]) -> Result<logs::Options, String> {
    let mut parsed = logs::Options::default();
    for option in options {
        match (*option, option.parse::<Service>()) {
            ("-f", _) => parsed.follow = true,
            (_, Ok(service)) => parsed.service = Some(service),
            (unknown, Err(())) => {
                return Err(format!(
                    "logs: expected -f or one of gateway, api, recorder, llm, nats, postgres; found {unknown}"
                ));
            }
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_options_are_understood() {
        let logs = |service, follow| Command::Logs(logs::Options { service, follow });
        let up = |detached, release| Command::Up(up::Options { detached, release });
        let cases: [(&[&str], Command); 11] = [
            (&["up"], up(false, false)),
            (&["up", "-d"], up(true, false)),
            (&["up", "--release"], up(false, true)),
            (&["up", "--release", "-d"], up(true, true)),
            (&["down"], Command::Down),
            (&["status"], Command::Status),
            (&["logs"], logs(None, false)),
            (&["logs", "nats", "-f"], logs(Some(Service::Nats), true)),
            (&["logs", "-f"], logs(None, true)),
            (&["reset"], Command::Reset(Consent::Ask)),
            (&["reset", "--yes"], Command::Reset(Consent::Given)),
        ];
        for (arguments, command) in cases {
            assert_eq!(parse(arguments), Ok(command), "{arguments:?}");
        }
    }

    #[test]
    fn errors_name_the_argument_that_is_not_understood() {
        let cases: [(&[&str], &str); 7] = [
            (&[], "a command is missing"),
            (&["start"], "there is no command start"),
            (&["up", "-x"], "up has no option -x"),
            (&["down", "now"], "down takes no arguments"),
            (
                &["logs", "nginx"],
                "logs: expected -f or one of gateway, api, recorder, llm, nats, postgres; found nginx",
            ),
            (&["reset", "--no"], "reset has no option --no"),
            (&["reset", "--yes", "--yes"], "reset: too many arguments"),
        ];
        for (arguments, message) in cases {
            assert_eq!(parse(arguments).unwrap_err(), message, "{arguments:?}");
        }
    }
}
