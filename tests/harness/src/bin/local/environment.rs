//! The environment of a service: a few variables for every program, the settings of the service, and nothing else of the
//! caller's environment.

use std::ffi::OsString;
use std::process::Command;

/// Variables for every service.
const INHERITED: [&str; 12] = [
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "RUST_BACKTRACE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "LOG",
    "LOG_FORMAT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_TRACES_SAMPLER_ARG",
];

/// The caller's variables for a service, beside [`INHERITED`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PassedOn<'a> {
    /// Common prefix of the names of variables, such as `GATEWAY_`.
    pub(crate) prefix: Option<&'a str>,
    /// Complete names of variables.
    pub(crate) names: &'a [String],
}

/// Reduces the environment of a command to the allowed variables. Variables that are set on the command afterwards are added.
pub(crate) fn clean(command: &mut Command, passed_on: PassedOn<'_>) {
    command.env_clear().envs(kept(std::env::vars_os(), passed_on));
}

fn kept<'a>(
    variables: impl Iterator<Item = (OsString, OsString)> + 'a,
    passed_on: PassedOn<'a>,
) -> impl Iterator<Item = (OsString, OsString)> + 'a {
    variables.filter(move |(name, _)| {
        let Some(name) = name.to_str() else { return false };
        INHERITED.contains(&name)
            || passed_on.prefix.is_some_and(|prefix| name.starts_with(prefix))
            || passed_on.names.iter().any(|passed| passed == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_every_program_needs_and_the_settings_of_the_service() {
        let given = ["PATH", "GATEWAY_LOG", "GATEWAYS", "RECORDER_X", "OPENAI_KEY", "OPENAI_KEY_2", "AWS_SECRET"];
        let given = given.into_iter().map(|name| (OsString::from(name), OsString::from("value")));
        let names = ["OPENAI_KEY".to_owned()];
        let passed_on = PassedOn { prefix: Some("GATEWAY_"), names: &names };
        let kept: Vec<_> = kept(given, passed_on).map(|(name, _)| name.into_string().unwrap()).collect();
        assert_eq!(kept, ["PATH", "GATEWAY_LOG", "OPENAI_KEY"]);
    }
}
