// The page of one call: its course, its tokens and its cost in their parts, and all that is on record of it.

import "../locales/record.js";
import { conversationPath } from "../address.js";
import { getJson } from "../api.js";
import { backLink, costText, statusBadge, tokensText } from "../components/calls.js";
import { keyName, loadKeyNames } from "../components/key-names.js";
import { operationName } from "../components/keys.js";
import { loadProjects, projectName } from "../components/project-names.js";
import { copyText, loadingIndicator, notice } from "../components/ui.js";
import { loadUserNames, userName } from "../components/user-names.js";
import { waterfall } from "../components/waterfall.js";
import { exactDollars } from "../csv.js";
import { h, iconButton, replaceChildren } from "../dom.js";
import { formatCost, formatDateTime, formatNumber, formatSeconds, formatShortCost, t } from "../i18n.js";
import * as live from "../live.js";
import { user } from "../session.js";

/** The parts of the tokens, and the parts of the cost that belong to each. */
const PARTS = [
  ["uncachedInput", "uncachedInputTokens", ["input"]], ["cacheRead", "cacheReadTokens", ["cacheRead"]], ["cacheWrite", "cacheWriteTokens", ["cacheWrite5m", "cacheWrite1h"]],
  ["output", "outputTokens", ["output"]], ["reasoning", "reasoningTokens", ["reasoning"]], ["audio", null, ["audio"]], ["other", null, ["other"]],
];

export function page({ id }) {
  const isAdmin = user.role === "admin";
  const body = h("div", {});
  let isGone = false;

  async function load({ silent = false } = {}) {
    if (!silent) replaceChildren(body, loadingIndicator());
    try {
      const [call] = await Promise.all([getJson(`/api/chats/${encodeURIComponent(id)}`), loadKeyNames({ ofAll: isAdmin }), loadProjects({ ofAll: isAdmin }), isAdmin ? loadUserNames() : null]);
      if (!isGone) replaceChildren(body, content(call));
    } catch (error) {
      if (isGone || silent) return;
      const retry = error.status === 404 || error.status === 400 ? null : h("button.button.secondary.small.spaced", { type: "button", onclick: () => load() }, t("retry"));
      replaceChildren(body, h("h1", {}, t("calls.one")), notice("warn", retry ? error.message : t("calls.notThere")), retry);
    }
  }

  const unsubscribe = live.subscribe("chat", (chat) => {
    if (chat.id === id) load({ silent: true });
  });
  load();
  const back = isAdmin ? backLink("/admin/calls", t("calls.backToAll")) : backLink("/settings/calls", t("calls.back"));
  const element = h("div.page-scroller", {}, h("div.page", {}, back, body));
  return { element, title: t("calls.one"), destroy: () => { isGone = true; unsubscribe(); } };
}

function content(call) {
  const { error } = call;
  const stage = error ? t(`stage.${error.stage}`) : null;
  return [
    h("header.call-header", {}, h("h1", {}, call.model), statusBadge(call.status), h("p.subtitle", {}, t("calls.since", { when: formatDateTime(call.startedAt) }))),
    error ? notice("bad", h("strong", {}, stage.startsWith("stage.") ? error.stage : stage), error.status ? ` HTTP ${error.status}` : null, error.message ? h("p", {}, error.message) : null) : null,
    figures(call),
    call.attempts.length ? section("course", t("calls.course"), waterfall(call)) : null,
    call.usage ? section("tokens", t("calls.tokensAndCost"), parts(call)) : null,
    section("facts", t("calls.facts"), facts(call)),
    call.notes.length ? section("notes", t("calls.notes"), h("p.hint", {}, t("calls.notesText")), h("ul.tags", {}, call.notes.map((note) => h("li", {}, h("code", {}, note))))) : null,
    call.rawUsage === null ? null : section("raw", t("calls.raw"), h("details.tool", {}, h("summary", {}, t("calls.rawShow")), h("pre.snippet", { tabindex: "0" }, h("code", { "data-raw": "usage" }, JSON.stringify(call.rawUsage, null, 2))))),
  ];
}

const section = (id, title, ...children) => h("section.section", { "aria-labelledby": `call-${id}` }, h("h2", { id: `call-${id}` }, title), h("div.card", {}, ...children));

function figures(call) {
  const tile = (name, label, value, note, exact) => h("div.tile", { "data-figure": name }, h("dt", {}, label), h("dd", {}, h("strong", { title: exact }, value), note ? h("span", {}, note) : null));
  const { cost, usage } = call;
  return h("dl.tiles.four", {},
    tile("duration", t("calls.duration"), call.durationMs === null ? "–" : formatSeconds(call.durationMs), call.finishedAt ? t("calls.until", { when: formatDateTime(call.finishedAt) }) : t("calls.running")),
    tile("first", t("calls.firstToken"), call.timeToFirstTokenMs === null ? "–" : formatSeconds(call.timeToFirstTokenMs), call.stream === false ? t("calls.notStreamed") : null),
    tile("tokens", t("usage.tokens"), tokensText(call) === null ? "–" : formatNumber(usage.totalTokens ?? (usage.promptTokens ?? 0) + (usage.completionTokens ?? 0)), usage ? t(`calls.source.${usage.source}`) : null),
    tile("cost", t("usage.cost"), costText(call, formatShortCost), cost ? t(cost.estimated ? "calls.costEstimated" : "calls.costByList", { version: cost.priceVersion }) : null, cost ? `$${exactDollars(cost.nanodollars)}` : null));
}

/** The table of the parts: tokens beside what they cost. */
function parts({ usage, cost }) {
  const rows = PARTS.map(([name, member, costs]) => ({ name, tokens: member ? usage[member] : null, nanodollars: cost ? costs.reduce((sum, part) => sum + cost.parts[part], 0) : null }))
    .filter(({ tokens, nanodollars }) => tokens || nanodollars);
  const cell = (name, value, text) => h("td", { "data-member": name, "data-value": value }, value === null || value === undefined ? "–" : text(value));
  return h("div.table-card", { tabindex: "0", role: "group", "aria-labelledby": "call-tokens" }, h("table.data-table.parts", {},
    h("thead", {}, h("tr", {}, [t("calls.part"), t("usage.tokens"), t("usage.cost")].map((label) => h("th", { scope: "col" }, label)))),
    h("tbody", {}, rows.map(({ name, tokens, nanodollars }) => h("tr", { "data-part": name }, h("th", { scope: "row" }, t(`calls.part.${name}`)), cell("tokens", tokens, formatNumber), cell("cost", nanodollars, formatCost)))),
    h("tfoot", {}, h("tr", { "data-part": "total" }, h("th", { scope: "row" }, t("usage.total")), cell("tokens", usage.totalTokens ?? null, formatNumber), cell("cost", cost?.nanodollars ?? null, formatCost)))));
}

function facts(call) {
  const copyable = (text) => h("span.copyable", {}, h("code", {}, text), iconButton("copy", `${t("copy.action")}: ${text}`, (event) => copyText(text, event.currentTarget), { small: true }));
  const { cost, upstream, callerMetadata, media } = call;
  const metadata = callerMetadata?.metadata;
  const isOwn = call.userId === user.id;
  const list = [
    ["id", copyable(call.id)],
    ["operation", operationName(call.operation)],
    ["user", isOwn ? null : userName(call.userId)],
    ["conversation", call.conversationId && isOwn ? h("a", { href: conversationPath(call.conversationId) }, call.conversationId) : call.conversationId],
    ["key", call.keyId ? keyName(call.keyId) : null],
    ["project", call.projectId ? projectName(call.projectId) : null],
    ["upstream", upstream?.name],
    ["upstreamModel", upstream?.model],
    ["responseId", upstream?.responseId ? copyable(upstream.responseId) : null],
    ["gateway", call.gateway],
    ["dialect", call.dialect],
    ["temperature", call.temperature === null ? null : formatNumber(call.temperature)],
    ["recording", call.recording === "full" ? null : call.recording],
    ["pricedAs", cost?.pricedAs],
    ["priceVersion", cost ? h("code", {}, cost.priceVersion) : null],
    ["providerCost", call.providerCostNanodollars === null ? null : formatCost(call.providerCostNanodollars)],
    ["callerUser", callerMetadata?.user],
    ["tags", callerMetadata?.tags.length ? h("ul.tags", {}, callerMetadata.tags.map((tag) => h("li", {}, tag))) : null],
    ["metadata", metadata ? h("code", {}, typeof metadata === "string" ? metadata : JSON.stringify(metadata)) : null],
    ["media", media ? Object.entries(media).filter(([, value]) => value !== null).map(([name, value]) => `${t(`calls.media.${name}`)}: ${formatNumber(value)}`).join(" · ") : null],
    ["error", [call.error?.type, call.error?.code].filter(Boolean).join(" · ")],
  ];
  return h("dl.description-list", {}, list.filter(([, value]) => value).map(([name, value]) => h("div", { "data-fact": name }, h("dt", {}, t(`calls.fact.${name}`)), h("dd", {}, value))));
}
