// The administration page: usage and calls of all users, users, API keys, limits, projects, recent failures, invites, the audit log.

import { callPath, sitePath } from "../address.js";
import { requestJson } from "../api.js";
import { auditSection } from "../components/audit.js";
import { callSection } from "../components/calls.js";
import { keyName, loadKeyNames } from "../components/key-names.js";
import { keySection, operationName } from "../components/keys.js";
import { limitSection } from "../components/limits.js";
import { listSection, PagedList } from "../components/paged-list.js";
import { loadProjects, projectName } from "../components/project-names.js";
import { projectSection } from "../components/projects.js";
import { copyText, field, notice, openDialog, tabs, toast } from "../components/ui.js";
import { UsageView } from "../components/usage.js";
import { knowsUser, loadUserNames, noteUser, userName } from "../components/user-names.js";
import { debounce, h, icon, iconButton, replaceChildren } from "../dom.js";
import { formatDateTime, t } from "../i18n.js";
import { user as currentUser } from "../session.js";

const SECTIONS = {
  usage, calls: () => callSection({ ofAll: true }), users, keys: () => keySection({ ofAll: true }), limits: limitSection, projects: () => projectSection({ ofAll: true }), failures, invites, audit: auditSection,
};

export function page({ section }) {
  const { element, destroy } = currentUser.role === "admin" ? SECTIONS[section]() : { element: notice("warn", t("admin.forbidden")), destroy: () => {} };
  const links = Object.keys(SECTIONS).map((name) => [name === "usage" ? "/admin" : `/admin/${name}`, t(`admin.${name}`), name === section]);
  return { element: h("div.page-scroller", {}, h("div.page", {}, h("h1", {}, t("admin.title")), tabs(t("admin.title"), links), element)), title: t("admin.title"), destroy };
}

function usage() {
  const loadUsers = async (ids) => {
    if (ids.some((id) => id !== null && !knowsUser(id))) await loadUserNames();
  };
  const view = new UsageView({
    path: "/api/admin/usage",
    isOfAll: true,
    groups: [
      { by: "user", name: userName, loadNames: loadUsers }, { by: "model" },
      { by: "project", name: projectName, loadNames: () => loadProjects({ ofAll: true }) },
      { by: "key", name: keyName, loadNames: () => loadKeyNames({ ofAll: true }) }, { by: "operation", name: operationName },
    ],
  });
  return { element: h("section.section", { "aria-labelledby": "usage-title" }, view.element), destroy: () => view.destroy() };
}

function section(name, controls, list) {
  return listSection({ id: `${name}-title`, title: t(`admin.${name}`), intro: t(`admin.${name}Intro`), controls, list });
}

// --- users

function users() {
  const search = h("input.input", { type: "search", placeholder: t("users.search"), "aria-label": t("users.search"), maxlength: 64, oninput: debounce(250, () => list.load()) });
  const list = new PagedList({ path: "/api/admin/users", empty: t("users.none"), before: loadUserNames, query: () => ({ q: search.value.trim() }), row: userRow });
  return section("users", search, list);
}

function userRow(user) {
  noteUser(user);
  const row = h("li.row", { "data-user": user.id });
  const render = () => {
    const isDisabled = Boolean(user.disabledAt);
    const toggle = user.id === currentUser.id ? null : h("button.button.secondary.small", { type: "button", "aria-label": t(isDisabled ? "users.enableName" : "users.disableName", { name: user.name ?? user.id }), onclick: () => setDisabled(!isDisabled) }, t(isDisabled ? "users.enable" : "users.disable"));
    replaceChildren(row,
      h("div.row-main", {}, h("strong", {}, user.name ?? user.id), user.role === "admin" ? h("span.badge", {}, t("profile.admin")) : null, isDisabled ? h("span.badge.bad", {}, t("users.disabled")) : null,
        h("span.row-details", {}, [user.createdAt ? t("users.since", { when: formatDateTime(user.createdAt) }) : t("profile.external"), user.invitedBy ? t("users.invitedBy", { name: userName(user.invitedBy) }) : null].filter(Boolean).join(" · "))),
      toggle);
  };
  async function setDisabled(disabled) {
    if (disabled && !(await openDialog({ title: t("users.disableTitle", { name: user.name ?? user.id }), text: t("users.disableText"), submitLabel: t("users.disable"), kind: "danger" }))) return;
    try {
      Object.assign(user, await requestJson("PATCH", `/api/admin/users/${encodeURIComponent(user.id)}`, { body: { disabled } }));
      render();
    } catch (error) {
      toast(error.message);
    }
  }
  render();
  return row;
}

// --- failures

function failures() {
  const list = new PagedList({ path: "/api/admin/failures", empty: t("failures.none"), before: loadUserNames, row: failureRow });
  return section("failures", null, list);
}

function failureRow(chat) {
  const { error } = chat;
  const stage = error?.stage ? t(`stage.${error.stage}`) : t("stage.unknown");
  return h("li.row.tall", { "data-chat": chat.id },
    h("div.row-main", {},
      h("a", { href: callPath(chat.id) }, h("strong", {}, stage)), error?.status ? h("span.badge.bad", {}, `HTTP ${error.status}`) : null, chat.status === "orphaned" ? h("span.badge", {}, t("failures.orphaned")) : null,
      h("span.row-details", {}, formatDateTime(chat.startedAt), " · ", userName(chat.userId), " · ", chat.model),
      error?.message ? h("p.row-text", {}, error.message) : null,
      h("details.tool", {}, h("summary", {}, t("failures.attempts", { n: chat.attempts.length })),
        h("dl.description-list", {}, [["failures.chat", chat.id], ["failures.gateway", chat.gateway], ["failures.type", [error?.type, error?.code].filter(Boolean).join(" · ")]].map(([key, value]) => (value ? h("div", {}, h("dt", {}, t(key)), h("dd", {}, h("code", {}, value))) : null))),
        h("ol.attempts", {}, chat.attempts.map((attempt) => h("li", {}, [attempt.upstream, attempt.status ? `HTTP ${attempt.status}` : null, attempt.durationMs !== null ? `${attempt.durationMs} ms` : null, attempt.error].filter(Boolean).join(" · ")))))));
}

// --- invites

function invites() {
  const list = new PagedList({ path: "/api/admin/invites", empty: t("invites.none"), before: loadUserNames, row: inviteRow });
  const createButton = h("button.button.primary", { type: "button", onclick: () => createInvite(list) }, icon("plus"), t("invites.new"));
  return section("invites", createButton, list);
}

async function createInvite(list) {
  const uses = h("input.input", { name: "maxUses", type: "number", min: 1, max: 1000, value: "1", required: true });
  const expiry = h("select.input", { name: "expiresInHours" }, [[24, "invites.day"], [168, "invites.week"], [720, "invites.month"]].map(([hours, key]) => h("option", { value: hours }, t(key))));
  expiry.value = "168";
  let created = null;
  await openDialog({
    title: t("invites.new"),
    fields: [field("note", t("invites.note"), { maxlength: 200, hint: t("invites.noteHint") }), field("maxUses", t("invites.uses"), { input: uses }), field("expiresInHours", t("invites.expiry"), { input: expiry }), h("label.check-field", {}, h("input", { type: "checkbox", name: "admin" }), t("invites.admin"))],
    submitLabel: t("invites.create"),
    submit: async (data) => {
      const note = data.get("note").trim();
      created = await requestJson("POST", "/api/admin/invites", { body: { maxUses: Number(data.get("maxUses")), expiresInHours: Number(data.get("expiresInHours")), admin: data.get("admin") !== null, ...(note ? { note } : {}) } });
    },
  });
  if (!created) return;
  list.load();
  const link = `${location.origin}${sitePath("/register")}?code=${encodeURIComponent(created.code)}`;
  const copyableField = (id, label, text) => field(id, label, { input: h("span.copyable.framed", { role: "group", "aria-label": label }, h("code", { "data-created": id }, text), iconButton("copy", `${t("copy.action")}: ${label}`, (event) => copyText(text, event.currentTarget), { small: true })) });
  await openDialog({ title: t("invites.created"), text: t("invites.codeNote"), fields: [copyableField("code", t("register.code"), created.code), copyableField("link", t("invites.link"), link)], submitLabel: t("done") });
}

function inviteRow(invite) {
  const row = h("li.row", { "data-invite": invite.id });
  const render = () => {
    const state = invite.revokedAt ? "revoked" : invite.uses >= invite.maxUses ? "used" : new Date(invite.expiresAt) < new Date() ? "expired" : "open";
    replaceChildren(row,
      h("div.row-main", {}, h("strong", {}, invite.note || t("invites.unnamed")), h("span.badge", { class: state === "open" ? "good" : "" }, t(`invites.${state}`)), invite.role === "admin" ? h("span.badge", {}, t("profile.admin")) : null,
        h("span.row-details", {}, [t("invites.useCount", { uses: invite.uses, max: invite.maxUses }), t("invites.until", { when: formatDateTime(invite.expiresAt) }), invite.createdBy ? t("invites.by", { name: userName(invite.createdBy) }) : null].filter(Boolean).join(" · "))),
      state === "open" ? h("button.button.secondary.small", { type: "button", "aria-label": `${t("invites.revoke")}: ${invite.note || t("invites.unnamed")}`, onclick: revoke }, t("invites.revoke")) : null);
  };
  async function revoke() {
    try {
      await requestJson("DELETE", `/api/admin/invites/${encodeURIComponent(invite.id)}`);
      invite.revokedAt = new Date().toISOString();
      render();
    } catch (error) {
      toast(error.message);
    }
  }
  render();
  return row;
}
