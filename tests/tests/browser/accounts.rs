//! Register with an invite, log out, log in, and what is said when that does not go well.

use crate::site::{PASSWORD, Site};

#[tokio::test]
async fn an_invite_creates_an_account_that_can_log_in() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    browser.open("/settings").await?;
    browser.until("location.pathname === '/login'").await?;

    let code = site.invite(&[]).await?;
    browser.open(&format!("/register?code={code}")).await?;
    browser.type_into("[name=name]", "ann").await?;
    browser.type_into("[name=password]", PASSWORD).await?;
    browser.click("[type=submit]").await?;
    browser.see(".composer textarea").await?;
    assert_eq!(browser.text(".user-name").await?, "ann");

    site.log_out().await?;
    browser.type_into("[name=name]", "ann").await?;
    browser.type_into("[name=password]", "not the password").await?;
    browser.click("[type=submit]").await?;
    browser.read("The name or the password is wrong.").await?;
    browser.type_over("[name=password]", PASSWORD).await?;
    browser.click("[type=submit]").await?;
    browser.see(".composer textarea").await?;
    // The session's cookies cannot be read by a script.
    assert_eq!(browser.script("return document.cookie", vec![]).await?, "");

    // An invite code can be used once.
    site.log_out().await?;
    browser.open(&format!("/register?code={code}")).await?;
    browser.type_into("[name=name]", "bob").await?;
    browser.type_into("[name=password]", PASSWORD).await?;
    browser.click("[type=submit]").await?;
    browser.read("This invite code is not valid").await?;
    site.close().await
}

#[tokio::test]
async fn a_password_can_be_changed() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    browser.open("/settings").await?;
    browser.type_into("[name=currentPassword]", "not the password").await?;
    browser.type_into("[name=newPassword]", "another few words").await?;
    browser.choose("Change the password").await?;
    browser.read("The name or the password is wrong.").await?;
    browser.type_over("[name=currentPassword]", PASSWORD).await?;
    browser.choose("Change the password").await?;
    browser.read("The password has been changed.").await?;
    site.log_out().await?;
    browser.type_into("[name=name]", "ann").await?;
    browser.type_into("[name=password]", "another few words").await?;
    browser.click("[type=submit]").await?;
    browser.see(".composer textarea").await?;
    site.close().await
}
