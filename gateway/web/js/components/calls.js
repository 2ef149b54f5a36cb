// The ledger: the list of calls with its filters, of the user or of all users.

import "../locales/record.js";
import { callPath } from "../address.js";
import { h, icon } from "../dom.js";
import { formatCost, formatDateTime, formatSeconds, t } from "../i18n.js";
import { user as currentUser } from "../session.js";
import { Filters, idOf } from "./filters.js";
import { keyName, knownKeys, loadKeyNames } from "./key-names.js";
import { OPERATIONS, operationName } from "./keys.js";
import { listSection, PagedList } from "./paged-list.js";
import { knownProjects, loadProjects, projectName } from "./project-names.js";
import { knownUsers, loadUserNames, userName } from "./user-names.js";

const STATUSES = ["completed", "failed", "started", "orphaned"];

/** The name of a status; a status that the page does not know is shown as it is. */
export function statusBadge(status) {
  const kind = { completed: "good", failed: "bad", orphaned: "bad" }[status] ?? "";
  return h("span.badge", { class: kind, "data-status": status }, STATUSES.includes(status) ? t(`calls.status.${status}`) : status);
}

/** The section of the calls of the current user, or with `ofAll` of all users. */
export function callSection({ ofAll = false } = {}) {
  const filters = new Filters({
    fields: [
      ofAll ? { name: "userId", label: t("calls.user"), suggestions: [], toId: idOf(knownUsers) } : null,
      { name: "status", label: t("calls.status"), choices: STATUSES.map((status) => [status, t(`calls.status.${status}`)]) },
      { name: "operation", label: t("calls.operation"), choices: OPERATIONS.map((operation) => [operation, operationName(operation)]) },
      { name: "model", label: t("calls.model") },
      { name: "keyId", label: t("calls.key"), suggestions: [], toId: idOf(knownKeys) },
      { name: "projectId", label: t("calls.project"), suggestions: [], toId: idOf(knownProjects) },
      { name: "tag", label: t("calls.tag") },
      { name: "from", label: t("calls.from"), isTime: true },
      { name: "to", label: t("calls.to"), isTime: true },
    ].filter(Boolean),
    onchange: () => list.load(),
  });
  const loadNames = async () => {
    await Promise.all([loadKeyNames({ ofAll }), loadProjects({ ofAll }), ofAll ? loadUserNames() : null]);
    filters.suggest("keyId", knownKeys());
    filters.suggest("projectId", knownProjects());
    filters.suggest("userId", knownUsers());
  };
  const list = new PagedList({ path: ofAll ? "/api/admin/chats" : "/api/chats", empty: t("calls.none"), before: loadNames, query: () => filters.query(), row: (call) => callRow(call, ofAll) });
  const section = listSection({ id: "calls-title", title: t("calls.title"), intro: t(ofAll ? "calls.introOfAll" : "calls.intro"), list });
  list.element.before(filters.element);
  return section;
}

function callRow(call, showUser) {
  const details = [
    formatDateTime(call.startedAt),
    showUser && call.userId !== currentUser.id ? userName(call.userId) : showUser ? t("calls.you") : null,
    call.operation === "chat" ? null : operationName(call.operation),
    call.keyId ? keyName(call.keyId) : null,
    call.projectId ? projectName(call.projectId) : null,
    ...(call.callerMetadata?.tags ?? []),
  ].filter(Boolean).join(" · ");
  return h("li.row.call", { "data-call": call.id },
    h("div.row-main", {}, h("a.call-link", { href: callPath(call.id) }, h("strong", {}, call.model)), statusBadge(call.status), h("span.row-details", {}, details)),
    h("div.call-figures", {}, h("strong", {}, costText(call)), h("span", {}, [tokensText(call), call.durationMs === null ? null : formatSeconds(call.durationMs)].filter(Boolean).join(" · "))));
}

/** The tokens of a call in words; null if they are not known. */
export function tokensText({ usage }) {
  if (!usage) return null;
  const known = usage.totalTokens ?? (usage.promptTokens === null && usage.completionTokens === null ? null : (usage.promptTokens ?? 0) + (usage.completionTokens ?? 0));
  if (known === null) return null;
  return t(usage.source === "estimated" ? "calls.tokensEstimated" : "calls.tokens", { n: known });
}

/** The cost of a call in words; `format` formats the amount. */
export function costText({ cost, unpriced }, format = formatCost) {
  if (cost) return (cost.estimated ? "~" : "") + format(cost.nanodollars);
  return unpriced ? t("calls.unpriced") : "–";
}

/** A link back to a list. */
export const backLink = (href, label) => h("a.back", { href }, icon("left"), label);
