// The settings page: usage, profile, password, language and theme; API keys; limits; projects.

import { requestJson } from "../api.js";
import { callSection } from "../components/calls.js";
import { keyName, loadKeyNames } from "../components/key-names.js";
import { keySection, operationName } from "../components/keys.js";
import { ownLimitSection } from "../components/limits.js";
import { loadProjects, projectName } from "../components/project-names.js";
import { projectSection } from "../components/projects.js";
import { copyText, field, notice, passwordField, segmentedControl, tabs, toast } from "../components/ui.js";
import { UsageView } from "../components/usage.js";
import { h, iconButton, replaceChildren } from "../dom.js";
import { currentLanguage, formatDateTime, languages, setLanguage, t } from "../i18n.js";
import { rebuildPage } from "../navigation.js";
import { user } from "../session.js";
import { currentTheme, setTheme, themes } from "../theme-choice.js";

const SECTIONS = { account, calls: () => callSection(), keys: () => keySection(), limits: ownLimitSection, projects: () => projectSection() };

export function page({ section }) {
  const { element, destroy } = SECTIONS[section]();
  const links = Object.keys(SECTIONS).map((name) => [name === "account" ? "/settings" : `/settings/${name}`, t(`settings.${name}`), name === section]);
  return { element: h("div.page-scroller", {}, h("div.page", {}, h("h1", {}, t("settings.title")), tabs(t("settings.title"), links), element)), title: t("settings.title"), destroy };
}

function account() {
  const usage = new UsageView({
    path: "/api/users/me/usage",
    groups: [{ by: "model" }, { by: "project", name: projectName, loadNames: () => loadProjects() }, { by: "key", name: keyName, loadNames: () => loadKeyNames() }, { by: "operation", name: operationName }],
  });
  const element = h("div", {}, h("section.section", { "aria-labelledby": "usage-title" }, usage.element), profile(), password(), appearance());
  return { element, destroy: () => usage.destroy() };
}

function card(id, title, ...children) {
  return h("section.section", { "aria-labelledby": id }, h("h2", { id }, title), h("div.card", {}, ...children));
}

function profile() {
  const rows = [
    [t("profile.name"), user.name ?? t("profile.external")],
    [t("profile.role"), t(user.role === "admin" ? "profile.admin" : "profile.member")],
    user.createdAt ? [t("profile.since"), formatDateTime(user.createdAt)] : null,
    [t("profile.id"), h("span.copyable", {}, h("code", {}, user.id), iconButton("copy", t("profile.copyId"), (event) => copyText(user.id, event.currentTarget), { small: true }))],
  ];
  return card("profile-title", t("profile.title"), h("dl.description-list", {}, rows.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))));
}

function password() {
  const errorArea = h("div", {});
  const button = h("button.button.primary", { type: "submit" }, t("password.change"));
  const form = h("form.narrow-form", { onsubmit: submit },
    h("input", { type: "text", name: "username", autocomplete: "username", value: user.name ?? "", hidden: true, tabindex: "-1", "aria-hidden": "true" }),
    passwordField("currentPassword", t("password.current"), { autocomplete: "current-password" }),
    passwordField("newPassword", t("password.new"), { autocomplete: "new-password", minlength: 10, hint: t("password.hint") }),
    errorArea, h("div", {}, button));

  async function submit(event) {
    event.preventDefault();
    const data = new FormData(form);
    button.disabled = true;
    replaceChildren(errorArea);
    try {
      await requestJson("POST", "/api/auth/password", { body: { currentPassword: data.get("currentPassword"), newPassword: data.get("newPassword") } });
      form.reset();
      toast(t("password.changed"));
    } catch (error) {
      replaceChildren(errorArea, notice("bad", error.message));
    }
    button.disabled = false;
  }

  return card("password-title", t("password.title"), form);
}

function appearance() {
  const select = h("select.input", { onchange: () => { setLanguage(select.value); rebuildPage(); } }, languages.map(([tag, name]) => h("option", { value: tag, lang: tag }, name)));
  select.value = currentLanguage();
  return card("appearance-title", t("appearance.title"), h("div.narrow-form", {},
    field("language", t("language"), { input: select }),
    h("div.field", {}, h("span.label", {}, t("theme")), h("div", {}, segmentedControl(t("theme"), themes.map((name) => [name, t(`theme.${name}`)]), currentTheme(), setTheme)))));
}
