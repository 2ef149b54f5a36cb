// For admins: usage of everyone, users, recent failures, invites.

import { get, json } from "../api.js";
import { debounce, fill, h, icon, iconButton } from "../dom.js";
import { dateTime, t } from "../i18n.js";
import { user as me } from "../session.js";
import { ask, copy, field, loading, notice, toast } from "../components/ui.js";
import { Usage } from "../components/usage.js";

const SECTIONS = ["usage", "users", "failures", "invites"];

/** Names of users, as far as they have been seen. */
const names = new Map();
const nameOf = (id) => names.get(id) ?? id;

export function page({ section }) {
  const chosen = SECTIONS.includes(section) ? section : "usage";
  const { element, leave } = me.role === "admin" ? { usage, users, failures, invites }[chosen]() : { element: notice("warn", t("admin.notYou")), leave: () => {} };
  const tabs = h("nav.tabs", { "aria-label": t("admin.title") }, SECTIONS.map((name) => h("a", { href: name === "usage" ? "/admin" : `/admin/${name}`, "aria-current": name === chosen ? "page" : null }, t(`admin.${name}`))));
  return { element: h("div.panel-scroller", {}, h("div.panel", {}, h("h1", {}, t("admin.title")), tabs, element)), title: t("admin.title"), leave };
}

function usage() {
  const shown = new Usage({
    path: "/api/admin/usage",
    users: {
      name: (id) => (id === null ? null : nameOf(id)),
      load: async (ids) => {
        if (ids.some((id) => id !== null && !names.has(id))) await learn();
      },
    },
  });
  return { element: h("section.section", { "aria-labelledby": "usage-title" }, shown.element), leave: () => shown.leave() };
}

let learned = null;

/** The names of the first users, which in most places are all. Without them, ids do. */
function learn() {
  learned ??= get("/api/admin/users", { limit: 100 })
    .then((page) => page.data.forEach((user) => names.set(user.id, user.name ?? user.id)))
    .catch(() => { learned = null; });
  return learned;
}

/** A list that goes on: `row` draws one. */
class List {
  constructor({ path, row, empty, query = () => ({}) }) {
    Object.assign(this, { path, row, empty, query });
    this.rows = h("ul.rows", {});
    this.foot = h("div.rows-foot", {});
    this.element = h("div", {}, this.rows, this.foot);
    this.load();
  }

  async load() {
    this.cursor = null;
    this.turn = (this.turn ?? 0) + 1;
    fill(this.rows);
    fill(this.foot, loading());
    await learn();
    await this.more();
  }

  async more() {
    const { turn } = this;
    try {
      const page = await get(this.path, { limit: 30, cursor: this.cursor, ...this.query() });
      if (turn !== this.turn) return;
      this.cursor = page.nextCursor;
      this.rows.append(...page.data.map((item) => this.row(item)));
      const isEmpty = this.rows.children.length === 0 && !this.cursor;
      fill(this.foot, isEmpty ? h("div.sheet.empty", {}, h("p", {}, this.empty)) : null, this.cursor ? h("button.button.secondary.small", { type: "button", onclick: () => this.more() }, t("list.more")) : null);
    } catch (error) {
      if (turn === this.turn) fill(this.foot, notice("warn", error.message), h("button.button.secondary.small.after", { type: "button", onclick: () => this.more() }, t("retry")));
    }
  }
}

function sectionOf(name, controls, list) {
  const id = `${name}-title`;
  return { element: h("section.section", { "aria-labelledby": id }, h("div.section-head", {}, h("div", {}, h("h2", { id }, t(`admin.${name}`)), h("p.sub", {}, t(`admin.${name}Words`))), controls ? h("div.controls", {}, controls) : null), list.element), leave: () => { list.turn += 1; } };
}

// --- users

function users() {
  const search = h("input.input", { type: "search", placeholder: t("users.search"), "aria-label": t("users.search"), maxlength: 64, oninput: debounce(250, () => list.load()) });
  const list = new List({ path: "/api/admin/users", empty: t("users.none"), query: () => ({ q: search.value.trim() }), row: userRow });
  return sectionOf("users", search, list);
}

function userRow(user) {
  names.set(user.id, user.name ?? user.id);
  const row = h("li.row", { "data-user": user.id });
  const draw = () => {
    const isDisabled = Boolean(user.disabledAt);
    const toggle = user.id === me.id ? null : h("button.button.secondary.small", { type: "button", "aria-label": t(isDisabled ? "users.enableName" : "users.disableName", { name: user.name ?? user.id }), onclick: () => change(!isDisabled) }, t(isDisabled ? "users.enable" : "users.disable"));
    fill(row,
      h("div.row-main", {}, h("strong", {}, user.name ?? user.id), user.role === "admin" ? h("span.badge", {}, t("profile.admin")) : null, isDisabled ? h("span.badge.bad", {}, t("users.disabled")) : null,
        h("span.row-more", {}, [user.createdAt ? t("users.since", { when: dateTime(user.createdAt) }) : t("profile.external"), user.invitedBy ? t("users.invitedBy", { name: nameOf(user.invitedBy) }) : null].filter(Boolean).join(" · "))),
      toggle);
  };
  async function change(disabled) {
    if (disabled && !(await ask({ title: t("users.disableTitle", { name: user.name ?? user.id }), words: t("users.disableWords"), action: t("users.disable"), kind: "danger" }))) return;
    try {
      Object.assign(user, await json("PATCH", `/api/admin/users/${encodeURIComponent(user.id)}`, { body: { disabled } }));
      draw();
    } catch (error) {
      toast(error.message);
    }
  }
  draw();
  return row;
}

// --- failures

function failures() {
  const list = new List({ path: "/api/admin/failures", empty: t("failures.none"), row: failureRow });
  return sectionOf("failures", null, list);
}

function failureRow(chat) {
  const { error } = chat;
  const stage = error?.stage ? t(`stage.${error.stage}`) : t("stage.unknown");
  return h("li.row.tall", { "data-chat": chat.id },
    h("div.row-main", {},
      h("strong", {}, stage), error?.status ? h("span.badge.bad", {}, `HTTP ${error.status}`) : null, chat.status === "orphaned" ? h("span.badge", {}, t("failures.orphaned")) : null,
      h("span.row-more", {}, dateTime(chat.startedAt), " · ", nameOf(chat.userId), " · ", chat.model),
      error?.message ? h("p.row-words", {}, error.message) : null,
      h("details.tool", {}, h("summary", {}, t("failures.attempts", { n: chat.attempts.length })),
        h("dl.facts-list", {}, [["failures.chat", chat.id], ["failures.gateway", chat.gateway], ["failures.type", [error?.type, error?.code].filter(Boolean).join(" · ")]].map(([name, value]) => (value ? h("div", {}, h("dt", {}, t(name)), h("dd", {}, h("code", {}, value))) : null))),
        h("ol.attempts", {}, chat.attempts.map((attempt) => h("li", {}, [attempt.upstream, attempt.status ? `HTTP ${attempt.status}` : null, attempt.durationMs !== null ? `${attempt.durationMs} ms` : null, attempt.error].filter(Boolean).join(" · ")))))));
}

// --- invites

function invites() {
  const list = new List({ path: "/api/admin/invites", empty: t("invites.none"), row: inviteRow });
  const create = h("button.button.primary", { type: "button", onclick: () => invite(list) }, icon("plus"), t("invites.new"));
  return sectionOf("invites", create, list);
}

async function invite(list) {
  const uses = h("input.input", { name: "maxUses", type: "number", min: 1, max: 1000, value: "1", required: true });
  const expiry = h("select.input", { name: "expiresInHours" }, [[24, "invites.day"], [168, "invites.week"], [720, "invites.month"]].map(([hours, words]) => h("option", { value: hours }, t(words))));
  expiry.value = "168";
  let made = null;
  await ask({
    title: t("invites.new"),
    fields: [field("note", t("invites.note"), { maxlength: 200, hint: t("invites.noteHint") }), field("maxUses", t("invites.uses"), { input: uses }), field("expiresInHours", t("invites.expiry"), { input: expiry }), h("label.check-field", {}, h("input", { type: "checkbox", name: "admin" }), t("invites.admin"))],
    action: t("invites.make"),
    submit: async (data) => {
      const note = data.get("note").trim();
      made = await json("POST", "/api/admin/invites", { body: { maxUses: Number(data.get("maxUses")), expiresInHours: Number(data.get("expiresInHours")), admin: data.get("admin") !== null, ...(note ? { note } : {}) } });
    },
  });
  if (!made) return;
  list.load();
  const link = `${location.origin}/register?code=${encodeURIComponent(made.code)}`;
  const line = (id, label, text) => field(id, label, { input: h("span.copyable.framed", { role: "group", "aria-label": label }, h("code", { "data-made": id }, text), iconButton("copy", `${t("copy.do")}: ${label}`, (event) => copy(text, event.currentTarget), { small: true })) });
  await ask({ title: t("invites.made"), words: t("invites.once"), fields: [line("code", t("register.code"), made.code), line("link", t("invites.link"), link)], action: t("done") });
}

function inviteRow(invite) {
  const row = h("li.row", { "data-invite": invite.id });
  const draw = () => {
    const state = invite.revokedAt ? "revoked" : invite.uses >= invite.maxUses ? "used" : new Date(invite.expiresAt) < new Date() ? "expired" : "open";
    fill(row,
      h("div.row-main", {}, h("strong", {}, invite.note || t("invites.nameless")), h("span.badge", { class: state === "open" ? "good" : "" }, t(`invites.${state}`)), invite.role === "admin" ? h("span.badge", {}, t("profile.admin")) : null,
        h("span.row-more", {}, [t("invites.used1", { uses: invite.uses, max: invite.maxUses }), t("invites.until", { when: dateTime(invite.expiresAt) }), invite.createdBy ? t("invites.by", { name: nameOf(invite.createdBy) }) : null].filter(Boolean).join(" · "))),
      state === "open" ? h("button.button.secondary.small", { type: "button", "aria-label": `${t("invites.revoke")}: ${invite.note || t("invites.nameless")}`, onclick: revoke }, t("invites.revoke")) : null);
  };
  async function revoke() {
    try {
      await json("DELETE", `/api/admin/invites/${encodeURIComponent(invite.id)}`);
      invite.revokedAt = new Date().toISOString();
      draw();
    } catch (error) {
      toast(error.message);
    }
  }
  draw();
  return row;
}
