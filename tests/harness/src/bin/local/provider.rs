//! The LLM provider that answers, chosen from the caller's settings.

use std::path::PathBuf;

use anyhow::Context as _;
use harness::upstream::stand_in;

/// The provider that a key without a URL is for.
const OPENAI: &str = "https://api.openai.com/v1";

/// Model in the printed example, where the provider is OpenAI.
const OPENAI_MODEL: &str = "gpt-4o-mini";

/// The source of the answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The stand-in LLM: no provider is named.
    StandIn,
    /// A single provider with an OpenAI-compatible API.
    Provider {
        /// URL up to and including `/v1`.
        base_url: String,
        /// Key of the provider. None for a provider without keys.
        key: Option<String>,
    },
    /// The providers of a file of routes.
    Routes {
        /// The file, as an absolute path.
        file: PathBuf,
        /// Variables with the keys of the routes.
        key_variables: Vec<String>,
    },
}

/// The source of the answers, and the model in the printed example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Provider {
    /// The source of the answers.
    pub(crate) source: Source,
    /// Model in the printed example. None means that the gateway is asked for a list of models.
    pub(crate) model: Option<String>,
}

impl Provider {
    /// Reads `GATEWAY_ROUTES_FILE`, `LLM_BASE_URL`, `LLM_API_KEY` and `DEMO_MODEL` with this function. Empty values count as
    /// unset.
    pub(crate) fn choose(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let key = variable("LLM_API_KEY");
        let base_url = variable("LLM_BASE_URL").map(|url| url.strip_suffix('/').unwrap_or(&url).to_owned());
        let source = match (variable("GATEWAY_ROUTES_FILE"), base_url) {
            (Some(file), _) => routes(&file)?,
            (None, Some(base_url)) => Source::Provider { base_url, key },
            (None, None) if key.is_some() => Source::Provider { base_url: OPENAI.to_owned(), key },
            (None, None) => Source::StandIn,
        };
        // An earlier start with the stand-in leaves its model in the environment of a shell that has sourced `.local/env`.
        let wanted = variable("DEMO_MODEL").filter(|model| model != stand_in::MODEL);
        let usual = match &source {
            Source::StandIn => Some(stand_in::MODEL),
            Source::Provider { base_url, .. } if base_url == OPENAI => Some(OPENAI_MODEL),
            Source::Provider { .. } | Source::Routes { .. } => None,
        };
        Ok(Self { source, model: wanted.or_else(|| usual.map(str::to_owned)) })
    }

    /// Describes the source of the answers, in the form of `UPSTREAM_URL`. None for the stand-in, because the URL of the
    /// stand-in depends on a port.
    pub(crate) fn describe(&self) -> Option<String> {
        match &self.source {
            Source::StandIn => None,
            Source::Provider { base_url, .. } => Some(base_url.clone()),
            Source::Routes { file, .. } => Some(format!("the routes of {}", file.display())),
        }
    }
}

fn routes(file: &str) -> anyhow::Result<Source> {
    let read = || anyhow::Ok((std::fs::read_to_string(file)?, std::fs::canonicalize(file)?));
    let (text, path) = read().with_context(|| format!("GATEWAY_ROUTES_FILE={file} cannot be read"))?;
    let mut key_variables = Vec::new();
    // A file that is not valid TOML names no variables; the gateway reports the error at the start.
    if let Ok(table) = text.parse::<toml::Table>() {
        collect_key_variables(&toml::Value::Table(table), &mut key_variables);
    }
    Ok(Source::Routes { file: path, key_variables })
}

fn collect_key_variables(value: &toml::Value, found: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                match value.as_str() {
                    Some(variable) if name == "key_from" => found.push(variable.to_owned()),
                    _ => collect_key_variables(value, found),
                }
            }
        }
        toml::Value::Array(values) => values.iter().for_each(|value| collect_key_variables(value, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(variables: &[(&str, &str)]) -> Provider {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
        Provider::choose(variable).unwrap()
    }

    fn provider(base_url: &str, key: Option<&str>) -> Source {
        Source::Provider { base_url: base_url.into(), key: key.map(Into::into) }
    }

    #[test]
    fn follows_the_settings() {
        type Case<'a> = (&'a [(&'a str, &'a str)], Source, Option<&'a str>);
        let cases: [Case<'_>; 7] = [
            (&[], Source::StandIn, Some("stand-in-1")),
            (&[("LLM_API_KEY", ""), ("LLM_BASE_URL", "")], Source::StandIn, Some("stand-in-1")),
            (&[("LLM_API_KEY", "sk")], provider(OPENAI, Some("sk")), Some("gpt-4o-mini")),
            (&[("LLM_BASE_URL", "http://x/v1/")], provider("http://x/v1", None), None),
            (&[("LLM_BASE_URL", "http://x/v1"), ("LLM_API_KEY", "k")], provider("http://x/v1", Some("k")), None),
            (&[("LLM_API_KEY", "sk"), ("DEMO_MODEL", "m")], provider(OPENAI, Some("sk")), Some("m")),
            (&[("LLM_BASE_URL", "http://x/v1"), ("DEMO_MODEL", "stand-in-1")], provider("http://x/v1", None), None),
        ];
        for (variables, source, model) in cases {
            let expected = Provider { source, model: model.map(str::to_owned) };
            assert_eq!(choose(variables), expected, "{variables:?}");
        }
    }

    #[test]
    fn routes_win_and_name_the_variables_of_their_keys() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("routes.toml");
        let routes = "[[routes]]\nmodel = 'a'\n[routes.upstream]\nkey_from = 'A_KEY'\n[[routes]]\nupstreams = [{ key_from = \"B_KEY\" }]\n";
        std::fs::write(&file, routes).unwrap();
        let chosen = choose(&[("GATEWAY_ROUTES_FILE", file.to_str().unwrap()), ("LLM_API_KEY", "sk")]);
        let Source::Routes { file: found, key_variables } = &chosen.source else { panic!("{chosen:?}") };
        assert_eq!(
            (found, key_variables.as_slice()),
            (&file.canonicalize().unwrap(), &["A_KEY".into(), "B_KEY".into()][..])
        );
        assert!(chosen.describe().unwrap().starts_with("the routes of /"));
    }

    #[test]
    fn a_file_of_routes_that_cannot_be_read_is_an_error_that_names_it() {
        let variable = |name: &str| (name == "GATEWAY_ROUTES_FILE").then(|| "/no/such/file".to_owned());
        let error = Provider::choose(variable).unwrap_err();
        assert!(format!("{error:#}").starts_with("GATEWAY_ROUTES_FILE=/no/such/file cannot be read"), "{error:#}");
    }
}
