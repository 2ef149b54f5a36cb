//! The page that `up` prints: addresses, accounts, and first things to try.

use crate::directory::Directory;
use crate::process;
use crate::programs::is_on_path;
use crate::service::Service;
use crate::settings_file::SettingsFile;

/// Returns the page for a deployment with these settings.
pub(crate) fn page(directory: &Directory, settings: &SettingsFile) -> String {
    let value = |name| settings.get(name);
    let answers = if process::is_running(directory, Service::Llm) {
        "a stand-in LLM, which only makes words up; set LLM_API_KEY (and LLM_BASE_URL) for a real one"
    } else {
        value("UPSTREAM_URL")
    };
    let psql = if is_on_path("psql") { "psql" } else { ".local/postgres/bin/psql" };
    let (gateway, token, model) = (value("GATEWAY_URL"), value("DEMO_TOKEN"), value("DEMO_MODEL"));
    let (demo, admin, invite) = (value("DEMO_PASSWORD"), value("ADMIN_PASSWORD"), value("INVITE_CODE"));
    format!(
        r#"
Stenograph is up: {gateway}
Answers come from {answers}

In a browser: {gateway}
  log in as demo, password {demo}; or as admin, password {admin}
  or register with the invite code {invite}; the API: {gateway}/api/docs

Chat:
  curl -N {gateway}/api/chat -H 'content-type: application/json' -H 'authorization: Bearer {token}' -d '{{"model":"{model}","messages":[{{"role":"user","content":"Hello!"}}]}}'

With an OpenAI SDK (Python), after: . .local/env
  client = OpenAI(base_url=os.environ["GATEWAY_URL"] + "/v1", api_key=os.environ["DEMO_TOKEN"])
  client.chat.completions.create(model="{model}", messages=[{{"role": "user", "content": "Hello!"}}])

Look at the record, after: . .local/env
  {psql} "$DATABASE_URL" -c 'SELECT role, content FROM messages'

Logs: .local/log/, or deploy/local.sh logs -f"#
    )
}
