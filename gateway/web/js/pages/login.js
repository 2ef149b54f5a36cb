// Log in, and register with an invite.

import { h, fill, icon } from "../dom.js";
import { languages, language, setLanguage, t } from "../i18n.js";
import { go, showAnew } from "../navigation.js";
import { login, register } from "../session.js";
import { field, notice, passwordField, segmented } from "../components/ui.js";

/** The page: `kind` is `login` or `register`. */
export function entrance(kind) {
  const isNew = kind === "register";
  document.title = `${t(isNew ? "register.title" : "login.title")} · Stenograph`;
  const query = new URLSearchParams(location.search);
  const problem = h("div", {});
  const button = h("button.button.primary.wide", { type: "submit" }, t(isNew ? "register.do" : "login.do"));
  const form = h("form", { onsubmit: submit },
    isNew ? field("inviteCode", t("register.code"), { required: true, autocomplete: "off", spellcheck: "false", maxlength: 200, value: query.get("code") ?? "" }) : null,
    field("name", t("login.name"), { required: true, autocomplete: "username", autocapitalize: "none", spellcheck: "false", maxlength: 64 }),
    passwordField("password", t("login.password"), { autocomplete: isNew ? "new-password" : "current-password", minlength: isNew ? 10 : null, hint: isNew ? t("password.hint") : null }),
    problem, button);

  async function submit(event) {
    event.preventDefault();
    const data = new FormData(form);
    button.disabled = true;
    fill(problem);
    try {
      if (isNew) await register(data.get("inviteCode").trim(), data.get("name").trim(), data.get("password"));
      else await login(data.get("name").trim(), data.get("password"));
      const next = query.get("next") ?? "/";
      // Only a path of ours: never another host.
      await go(/^\/(?![/\\])/.test(next) && !/^\/(login|register)/.test(next) ? next : "/", { replace: true });
    } catch (error) {
      fill(problem, notice("bad", error.message));
      form.querySelector(`[name="${CSS.escape(error.param ?? "password")}"]`)?.focus();
    }
    button.disabled = false;
  }

  setTimeout(() => [...form.querySelectorAll("input")].find((input) => !input.value)?.focus());
  return h("div.entrance", {},
    h("main.card", {},
      h("div.wordmark.large", {}, icon("mark"), h("span", {}, "Stenograph")),
      h("h1", {}, t(isNew ? "register.title" : "login.title")),
      h("p.lead", {}, t(isNew ? "register.lead" : "login.lead")),
      form,
      h("p.aside", {}, t(isNew ? "register.have" : "login.none"), " ", h("a", { href: isNew ? "/login" : "/register" }, t(isNew ? "login.title" : "register.title")))),
    h("footer", {}, segmented(t("language"), languages, language(), (tag) => {
      setLanguage(tag);
      showAnew();
    })));
}
