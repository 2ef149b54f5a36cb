// Settings: usage, profile, password, language and colours.

import { json } from "../api.js";
import { fill, h, iconButton } from "../dom.js";
import { dateTime, language, languages, setLanguage, t } from "../i18n.js";
import { showAnew } from "../navigation.js";
import { user } from "../session.js";
import { setTheme, theme, themes } from "../theme-choice.js";
import { copy, field, notice, passwordField, segmented, toast } from "../components/ui.js";
import { Usage } from "../components/usage.js";

export function page() {
  const usage = new Usage({ path: "/api/users/me/usage" });
  const element = h("div.panel-scroller", {}, h("div.panel", {},
    h("h1", {}, t("settings.title")),
    h("section.section", { "aria-labelledby": "usage-title" }, usage.element),
    profile(), password(), appearance()));
  return { element, title: t("settings.title"), leave: () => usage.leave() };
}

function section(id, title, ...children) {
  return h("section.section", { "aria-labelledby": id }, h("h2", { id }, title), h("div.sheet", {}, ...children));
}

function profile() {
  const rows = [
    [t("profile.name"), user.name ?? t("profile.external")],
    [t("profile.role"), t(user.role === "admin" ? "profile.admin" : "profile.member")],
    user.createdAt ? [t("profile.since"), dateTime(user.createdAt)] : null,
    [t("profile.id"), h("span.copyable", {}, h("code", {}, user.id), iconButton("copy", t("profile.copyId"), (event) => copy(user.id, event.currentTarget), { small: true }))],
  ];
  return section("profile-title", t("profile.title"), h("dl.facts-list", {}, rows.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))));
}

function password() {
  const place = h("div", {});
  const button = h("button.button.primary", { type: "submit" }, t("password.change"));
  const form = h("form.narrow-form", { onsubmit: submit },
    h("input", { type: "text", name: "username", autocomplete: "username", value: user.name ?? "", hidden: true, tabindex: "-1", "aria-hidden": "true" }),
    passwordField("currentPassword", t("password.current"), { autocomplete: "current-password" }),
    passwordField("newPassword", t("password.new"), { autocomplete: "new-password", minlength: 10, hint: t("password.hint") }),
    place, h("div", {}, button));

  async function submit(event) {
    event.preventDefault();
    const data = new FormData(form);
    button.disabled = true;
    fill(place);
    try {
      await json("POST", "/api/auth/password", { body: { currentPassword: data.get("currentPassword"), newPassword: data.get("newPassword") } });
      form.reset();
      toast(t("password.changed"));
    } catch (error) {
      fill(place, notice("bad", error.message));
    }
    button.disabled = false;
  }

  return section("password-title", t("password.title"), form);
}

function appearance() {
  const select = h("select.input", { onchange: () => { setLanguage(select.value); showAnew(); } }, languages.map(([tag, name]) => h("option", { value: tag, lang: tag }, name)));
  select.value = language();
  return section("appearance-title", t("appearance.title"), h("div.narrow-form", {},
    field("language", t("language"), { input: select }),
    h("div.field", {}, h("span.label", {}, t("theme")), h("div", {}, segmented(t("theme"), themes.map((name) => [name, t(`theme.${name}`)]), theme(), setTheme)))));
}
