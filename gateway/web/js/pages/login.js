// The pages to log in and to register with an invite.

import { field, notice, passwordField, segmentedControl } from "../components/ui.js";
import { h, icon, replaceChildren } from "../dom.js";
import { currentLanguage, languages, setLanguage, t } from "../i18n.js";
import { navigate, rebuildPage } from "../navigation.js";
import { login, register } from "../session.js";

/** Builds the page; `kind` is `login` or `register`. */
export function loginPage(kind) {
  const isRegistration = kind === "register";
  document.title = `${t(isRegistration ? "register.title" : "login.title")} · Stenograph`;
  const query = new URLSearchParams(location.search);
  const errorArea = h("div", {});
  const button = h("button.button.primary.wide", { type: "submit" }, t(isRegistration ? "register.submit" : "login.submit"));
  const form = h("form", { onsubmit: submit },
    isRegistration ? field("inviteCode", t("register.code"), { required: true, autocomplete: "off", spellcheck: "false", maxlength: 200, value: query.get("code") ?? "" }) : null,
    field("name", t("login.name"), { required: true, autocomplete: "username", autocapitalize: "none", spellcheck: "false", maxlength: 64 }),
    passwordField("password", t("login.password"), { autocomplete: isRegistration ? "new-password" : "current-password", minlength: isRegistration ? 10 : null, hint: isRegistration ? t("password.hint") : null }),
    errorArea, button);

  async function submit(event) {
    event.preventDefault();
    const data = new FormData(form);
    button.disabled = true;
    replaceChildren(errorArea);
    try {
      if (isRegistration) await register(data.get("inviteCode").trim(), data.get("name").trim(), data.get("password"));
      else await login(data.get("name").trim(), data.get("password"));
      const next = query.get("next") ?? "/";
      // Only a path of this site: an open redirect to another host must not be possible.
      await navigate(/^\/(?![/\\])/.test(next) && !/^\/(login|register)/.test(next) ? next : "/", { replace: true });
    } catch (error) {
      replaceChildren(errorArea, notice("bad", error.message));
      form.querySelector(`[name="${CSS.escape(error.param ?? "password")}"]`)?.focus();
    }
    button.disabled = false;
  }

  setTimeout(() => [...form.querySelectorAll("input")].find((input) => !input.value)?.focus());
  return h("div.login-page", {},
    h("main.login-card", {},
      h("div.wordmark.large", {}, icon("mark"), h("span", {}, "Stenograph")),
      h("h1", {}, t(isRegistration ? "register.title" : "login.title")),
      h("p.lead", {}, t(isRegistration ? "register.intro" : "login.intro")),
      form,
      h("p.login-switch", {}, t(isRegistration ? "register.loginPrompt" : "login.registerPrompt"), " ", h("a", { href: isRegistration ? "/login" : "/register" }, t(isRegistration ? "login.title" : "register.title")))),
    h("footer", {}, segmentedControl(t("language"), languages, currentLanguage(), (tag) => {
      setLanguage(tag);
      rebuildPage();
    })));
}
