//! Projects: made by an administrator, used by members for their keys, with the usage of each.

use anyhow::ensure;
use serde_json::json;
use tests::browser::{Colours, Screen};
use tests::stack::MODEL;

use crate::site::{ALL_SCREENS, Site};

async fn call(site: &Site, key: &str) -> anyhow::Result<u16> {
    let body = json!({"model": MODEL, "messages": [{"role": "user", "content": "hello"}]});
    let request = harness::http::client().post(site.gateway.url("/v1/chat/completions")).bearer_auth(key).json(&body);
    Ok(request.send().await?.status().as_u16())
}

const LONG: &str = "A_name_as_long_as_names_of_projects_can_be__without_a_space_in_it_____________________________end";

#[tokio::test]
async fn are_made_by_admins_and_count_the_keys_of_their_members() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    browser.open("/settings/projects").await?;
    browser.read("You are a member of no project").await?;
    site.log_out().await?;

    site.register("root", &["--admin"]).await?;
    browser.open("/admin/projects").await?;
    browser.read("There are no projects").await?;
    browser.choose("New project").await?;
    browser.type_into("dialog [name=name]", "Research").await?;
    browser.type_into("dialog [name=members]", "ann\nidp.example|a-user-of-an-external-identity-provider").await?;
    for (screen, name) in [(Screen::Phone, "project-new-phone"), (Screen::Wide, "project-new-1440")] {
        browser.look(screen, Colours::Light).await?;
        site.fits(name).await?;
    }
    browser.choose("Create the project").await?;
    browser.read("2 members").await?;
    browser.choose("New project").await?;
    browser.type_into("dialog [name=name]", LONG).await?;
    browser.choose("Create the project").await?;
    browser.read("0 members").await?;
    site.stack.settled().await?;
    site.log_out().await?;

    // A member issues a key of the project, and sees what the project uses.
    site.log_in("ann").await?;
    browser.open("/settings/keys").await?;
    browser.choose("New key").await?;
    browser.type_into("dialog [name=name]", "nightly").await?;
    browser.see("dialog [name=project]").await?;
    browser.script("document.querySelector('dialog [name=project]').selectedIndex = 1", vec![]).await?;
    browser.choose("Create the key").await?;
    let key = browser.text("[data-created=key]").await?;
    browser.choose("Done").await?;
    browser.read("project Research").await?;
    ensure!(call(&site, &key).await? == 200 && call(&site, &key).await? == 200);
    site.stack.settled().await?;
    browser.open("/settings/projects").await?;
    browser.choose("Usage: Research").await?;
    let pool = sqlx::PgPool::connect(&site.stack.recorder.database_url).await?;
    let calls: i64 =
        sqlx::query_scalar("SELECT count(*) FROM chats WHERE project_id IS NOT NULL").fetch_one(&pool).await?;
    ensure!(calls == 2, "{calls}");
    browser.see("[data-project] [data-figure=calls][data-value='2']").await?;
    for (screen, colours, name) in
        [(Screen::Phone, Colours::Dark, "project-usage-phone"), (Screen::Desktop, Colours::Light, "project-usage")]
    {
        browser.look(screen, colours).await?;
        site.fits(name).await?;
        browser.until("document.querySelector('[data-project]').getBoundingClientRect().right <= innerWidth").await?;
    }
    site.log_out().await?;

    // An administrator sees the name of the project in the usage of all, and disables the project.
    site.log_in("root").await?;
    site.looks(&ALL_SCREENS, "admin-projects", "/admin/projects", "[data-project]").await?;
    browser.open("/admin?by=project").await?;
    browser.open("/admin/projects").await?;
    browser.choose("Usage: Research").await?;
    browser.read("ann").await?;
    browser.choose(&format!("Usage: {LONG}")).await?;
    browser.until("document.querySelectorAll('.project-usage .usage').length === 1").await?;
    browser.choose("Disable: Research").await?;
    browser.click("dialog [type=submit]").await?;
    browser.see("[data-project] .badge.bad").await?;
    let deadline = tokio::time::Instant::now() + tests::browser::PATIENCE;
    while call(&site, &key).await? != 401 {
        ensure!(tokio::time::Instant::now() < deadline, "the key of the disabled project is accepted");
    }
    browser.choose("Change: Research").await?;
    browser.type_over("dialog [name=name]", "").await?;
    browser.type_into("dialog [name=name]", "Research & Teaching").await?;
    browser.choose("Save").await?;
    browser.read("Research & Teaching").await?;
    site.stack.settled().await?;
    site.close().await
}
