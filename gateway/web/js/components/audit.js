// The audit log: who did what, newest first, with filters.

import "../locales/record.js";
import { callPath } from "../address.js";
import { h } from "../dom.js";
import { formatDateTime, t } from "../i18n.js";
import { Filters, idOf } from "./filters.js";
import { keyName, loadKeyNames } from "./key-names.js";
import { listSection, PagedList } from "./paged-list.js";
import { loadProjects, projectName } from "./project-names.js";
import { knownUsers, loadUserNames, userName } from "./user-names.js";

/** The acts, those of users first. */
const ACTIONS = [
  "login", "logout", "session_end", "register", "password_change", "password_reset", "admin_grant", "admin_revoke", "user_create", "user_disable", "user_enable", "token_issue",
  "invite_create", "invite_revoke", "chats_read", "deleted_read", "conversation_delete", "key_issue", "key_change", "key_revoke", "project_change", "limits_change", "prices_publish", "costs_reprice",
  "quarantine_read", "quarantine_retry", "quarantine_drop",
];
const OUTCOMES = ["success", "failure", "throttled"];

/** The message of a word of an open set, or the word. */
function word(prefix, value) {
  const key = `${prefix}.${value}`;
  const text = t(key);
  return text === key ? value : text;
}

const actorName = (actor) => (["cli", "anonymous"].includes(actor) ? t(`audit.actor.${actor}`) : userName(actor));

/** The actors who can be chosen: pairs of id and name. */
const actors = () => [...knownUsers(), ...["cli", "anonymous"].map((actor) => [actor, t(`audit.actor.${actor}`)])];

export function auditSection() {
  const filters = new Filters({
    fields: [
      { name: "actor", label: t("audit.actor"), suggestions: actors(), toId: idOf(actors) },
      { name: "action", label: t("audit.action"), choices: ACTIONS.map((action) => [action, word("audit.action", action)]) },
      { name: "outcome", label: t("audit.outcome"), choices: OUTCOMES.map((outcome) => [outcome, word("audit.outcome", outcome)]) },
      { name: "target", label: t("audit.target"), suggestions: [], toId: idOf(knownUsers) },
      { name: "since", label: t("calls.from"), isTime: true },
      { name: "until", label: t("calls.to"), isTime: true },
    ],
    onchange: () => list.load(),
  });
  const loadNames = async () => {
    await Promise.all([loadUserNames(), loadKeyNames({ ofAll: true }), loadProjects({ ofAll: true })]);
    filters.suggest("actor", actors());
    filters.suggest("target", knownUsers());
  };
  const list = new PagedList({ path: "/api/admin/audit", empty: t("audit.none"), before: loadNames, query: () => filters.query(), row: entryRow });
  const section = listSection({ id: "audit-title", title: t("admin.audit"), intro: t("audit.intro"), list });
  list.element.before(filters.element);
  return section;
}

function entryRow(entry) {
  const badge = entry.outcome === "success" ? null : h("span.badge.bad", {}, word("audit.outcome", entry.outcome));
  return h("li.row.audit", { "data-entry": entry.id, "data-action": entry.action },
    h("div.row-main", {},
      h("strong", {}, word("audit.action", entry.action)), badge, entry.count > 1 ? h("span.badge", {}, t("audit.times", { n: entry.count })) : null,
      entry.target ? h("span.row-text.audit-target", {}, target(entry.target)) : null,
      h("span.row-details", {}, [actorName(entry.actor), formatDateTime(entry.at), entry.address].filter(Boolean).join(" · "))));
}

/** The thing that an act is about, by its name where that is known. */
function target({ kind, id }) {
  const label = h("span", {}, `${word("audit.kind", kind)} `);
  if (kind === "chat") return [label, h("a", { href: callPath(id) }, h("code", {}, id))];
  if (kind === "user") return [label, h("b", {}, userName(id))];
  if (kind === "key") return [label, h("b", {}, keyName(id))];
  if (kind === "project") return [label, h("b", {}, projectName(id))];
  return [label, h("code", {}, id)];
}
