//! The API against the API's own OpenAPI document, tested by Schemathesis.

use std::process::Command;

use tests::stack::{Stack, User};

/// Runs Schemathesis as a user, and returns the output.
async fn try_as(stack: &Stack, user: &User) -> anyhow::Result<String> {
    let mut command = Command::new("timeout");
    command.arg("600").arg(harness::program::checkout().join("tests/clients/schemathesis.sh"));
    command.env("GATEWAY_URL", stack.gateway.url("")).env("TOKEN", &user.token);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(
        said.starts_with("SKIPPED") || said.contains("generated"),
        "the output of schemathesis.sh has neither SKIPPED nor the number of generated cases"
    );
    Ok(said)
}

#[tokio::test]
#[ignore = "needs Schemathesis: tests/clients/run.sh runs this"]
async fn answers_as_its_document_says() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let (ann, root) = (stack.user("ann").await?, stack.user("root").await?);
    stack.recorder.run(&["users", "admin", "root"]).await?;
    stack.finished_chat(&ann, "hello").await?;
    stack.settled().await?;
    for user in [&ann, &root] {
        print!("{}", try_as(&stack, user).await?);
    }
    Ok(())
}
