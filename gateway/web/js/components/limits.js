// Limits: those that apply to the user, with what is used of them; and for admins the limits of all scopes.

import { getJson, requestJson } from "../api.js";
import { h, icon, replaceChildren } from "../dom.js";
import { formatDateTime, formatDollars, formatNumber, t } from "../i18n.js";
import * as live from "../live.js";
import { listSection, PagedList } from "./paged-list.js";
import { loadProjects, openProjects, projectName } from "./project-names.js";
import { field, loadingIndicator, notice, openDialog, toast } from "./ui.js";
import { knownUsers, loadUserNames, userName } from "./user-names.js";

/** The limits of a scope, in the order in which they are shown. */
const KINDS = ["requestsPerMinute", "tokensPerMinute", "concurrentChats"];
/** The periods of a budget, the shortest first. */
const PERIODS = ["hour", "day", "week", "month", "total"];
const SCOPES = ["everyone", "user", "key", "project", "model", "deployment"];
/** The greatest limit that the API takes. */
const MAX_LIMIT = 1_000_000_000_000;
/** The interval at which the use is read again, because it also changes without a call: at the end of a minute. */
const RELOAD_INTERVAL_MS = 10_000;

/** The section of the limits that apply to the current user. */
export function ownLimitSection() {
  const body = h("div", {}, loadingIndicator());
  const element = h("section.section", { "aria-labelledby": "limits-title" },
    h("div.section-header", {}, h("div", {}, h("h2", { id: "limits-title" }, t("limits.title")), h("p.subtitle", {}, t("limits.intro")))), body);
  let isGone = false;
  let timer = 0;

  async function load() {
    clearTimeout(timer);
    try {
      const [{ data }] = await Promise.all([getJson("/api/limits"), loadProjects()]);
      if (!isGone) show(data);
    } catch (error) {
      if (!isGone && !body.querySelector(".limit")) replaceChildren(body, notice("warn", error.message), h("button.button.secondary.small.spaced", { type: "button", onclick: load }, t("retry")));
    }
    if (!isGone) timer = setTimeout(load, RELOAD_INTERVAL_MS);
  }
  function show(limits) {
    replaceChildren(body, limits.length === 0
      ? h("div.card.empty", {}, h("p", {}, t("limits.none")))
      : h("ul.rows.limit-cards", {}, limits.map(ownLimit)));
  }

  const unsubscribe = live.subscribe("chat", () => {
    clearTimeout(timer);
    timer = setTimeout(load, 500);
  });
  load();
  return { element, destroy: () => { isGone = true; clearTimeout(timer); unsubscribe(); } };
}

/** A limit of the user, with a bar where the use is known. */
function ownLimit({ scope, name, kind, max, used, resetsAt }) {
  const title = kindName(kind);
  const figure = kind === "budget" ? (nanodollars) => formatDollars(nanodollars / 1e9) : (count) => formatNumber(count);
  const resets = kind === "budget" ? (resetsAt ? t("limits.budgetResets", { when: formatDateTime(resetsAt) }) : null) : t("limits.resets");
  return h("li.row.limit", { "data-limit": `${scope} ${kind}` },
    h("div.row-main", {}, h("strong", {}, title), h("span.row-details", {}, ownScopeName(scope, name))),
    h("div.limit-use", {},
      h("span.limit-figures", {}, used === null ? t("limits.max", { max: figure(max) }) : t("limits.used", { used: figure(used), max: figure(max) })),
      used === null ? h("span.limit-note", {}, t("limits.shared")) : meter(`${title}, ${ownScopeName(scope, name)}`, used, max, figure),
      used !== null && resetsAt && resets ? h("span.limit-note", {}, resets) : null));
}

/** A bar of a use of a maximum. A use beyond the maximum fills the bar. */
export function meter(label, used, max, figure = formatNumber) {
  const share = max === 0 ? 1 : Math.min(1, used / max);
  const bar = h("span.meter-bar", { class: share >= 1 ? "full" : share >= 0.8 ? "high" : "" });
  bar.style.setProperty("width", `${100 * share}%`);
  return h("span.meter", { role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": Math.max(max, 1), "aria-valuenow": max === 0 ? 1 : Math.min(used, max), "aria-valuetext": t("limits.used", { used: figure(used), max: figure(max) }) }, bar);
}

/** The name of a kind of limits; a kind that the page does not know is shown as it is. */
function kindName(kind) {
  const key = `limits.${kind}`;
  const name = t(key);
  return name === key ? kind : name;
}

function ownScopeName(scope, name) {
  const { kind, id } = parts(scope);
  if (kind === "user") return t("limits.yours");
  return kind === "key" ? t("limits.ofKey", { name: name ?? id }) : scopeName(scope);
}

function parts(scope) {
  const colon = scope.indexOf(":");
  return colon < 0 ? { kind: scope, id: null } : { kind: scope.slice(0, colon), id: scope.slice(colon + 1) };
}

function scopeName(scope) {
  const { kind, id } = parts(scope);
  if (kind === "user") return t("limits.ofUser", { name: userName(id) });
  if (kind === "key") return t("limits.ofKey", { name: id });
  if (kind === "project") return t("limits.ofProject", { name: projectName(id) });
  if (kind === "model") return t("limits.ofModel", { name: id });
  return t(`limits.${kind}`);
}

// --- for admins

/** The section of the limits of all scopes. */
export function limitSection() {
  const list = new PagedList({ path: "/api/admin/limits", empty: t("limits.noneOfAll"), before: () => Promise.all([loadUserNames(), loadProjects({ ofAll: true })]), row: (limits) => limitRow(limits) });
  const create = h("button.button.primary", { type: "button", onclick: () => createLimit(list) }, icon("plus"), t("limits.new"));
  return listSection({ id: "limits-title", title: t("limits.title"), intro: t("limits.introOfAll"), controls: create, list });
}

function limitRow(limits) {
  const row = h("li.row", { "data-scope": limits.scope });
  const name = scopeName(limits.scope);
  const render = () => {
    const set = KINDS.filter((kind) => limits[kind] !== null);
    replaceChildren(row,
      h("div.row-main", {}, h("strong", {}, name),
        h("span.row-text.limit-list", {}, set.map((kind) => h("span", {}, h("b", {}, formatNumber(limits[kind])), " ", t(`limits.unit.${kind}`))), budgetText(limits.budget)),
        h("span.row-details", {}, limits.changedAt ? t("limits.changed", { when: formatDateTime(limits.changedAt), name: limits.changedBy === "cli" ? t("limits.cli") : userName(limits.changedBy) }) : null)),
      h("div.row-buttons", {},
        h("button.button.secondary.small", { type: "button", "aria-label": `${t("limits.change")}: ${name}`, onclick: change }, t("limits.change")),
        h("button.button.secondary.small", { type: "button", "aria-label": `${t("limits.remove")}: ${name}`, onclick: remove }, t("limits.remove"))));
  };
  async function change() {
    await openDialog({
      title: t("limits.changeTitle", { name }),
      fields: limitFields(limits),
      submitLabel: t("save"),
      submit: async (data) => {
        Object.assign(limits, await requestJson("PUT", pathOf(limits.scope), { body: { ...kept(limits), ...entered(data, limits.budget) } }));
        render();
      },
    });
  }
  async function remove() {
    if (!(await openDialog({ title: t("limits.removeTitle", { name }), text: t("limits.removeText"), submitLabel: t("limits.remove"), kind: "danger" }))) return;
    try {
      await requestJson("DELETE", pathOf(limits.scope));
      row.remove();
    } catch (error) {
      toast(error.message);
    }
  }
  render();
  return row;
}

const pathOf = (scope) => `/api/admin/limits/${encodeURIComponent(scope)}`;

/** The limits of a scope that the page does not show, and therefore must send back: what is left out is removed. */
function kept(limits) {
  const { scope, changedAt, changedBy, ...all } = limits;
  return all;
}

/** A budget in a list of limits. A period and a policy that the page does not know are shown as they are. */
function budgetText(budget) {
  if (!budget) return null;
  const known = (key, word) => (t(key) === key ? word : t(key));
  return h("span", {}, h("b", {}, formatDollars(Number(budget.amount))), " ", known(`limits.per.${budget.period}`, budget.period), budget.policy === "finish" ? null : ` (${known(`limits.policy.${budget.policy}`, budget.policy)})`);
}

function limitFields(limits) {
  const budget = limits?.budget;
  const periods = budget && !PERIODS.includes(budget.period) ? [...PERIODS, budget.period] : PERIODS;
  const period = h("select.input", { name: "budgetPeriod" }, periods.map((name) => h("option", { value: name, selected: name === (budget?.period ?? "month") }, t(`limits.period.${name}`))));
  return [...counterFields(limits),
    field("budget", t("limits.budgetField"), { inputmode: "decimal", pattern: "[0-9]{1,9}([.][0-9]{1,9})?", autocomplete: "off", value: budget?.amount ?? "" }),
    field("budgetPeriod", t("limits.budgetPeriod"), { input: period })];
}

function counterFields(limits) {
  return KINDS.map((kind) => field(kind, kindName(kind), { type: "number", min: 0, max: MAX_LIMIT, step: 1, inputmode: "numeric", autocomplete: "off", value: limits?.[kind] ?? "", hint: kind === KINDS[0] ? t("limits.fieldHint") : null }));
}

/** The limits as entered. What the page does not show of a budget stays as it is. */
function entered(data, budget) {
  const counters = KINDS.map((kind) => [kind, data.get(kind) === "" ? null : Number(data.get(kind))]);
  const amount = data.get("budget").trim();
  return { ...Object.fromEntries(counters), budget: amount === "" ? null : { ...budget, amount, period: data.get("budgetPeriod") } };
}

async function createLimit(list) {
  const kind = h("select.input", { name: "scope", onchange: showTarget }, SCOPES.map((name) => h("option", { value: name }, t(`limits.scope.${name}`))));
  const target = h("div", {});
  function showTarget() {
    const needsId = !["everyone", "deployment"].includes(kind.value);
    const offered = { user: () => knownUsers().map(([, name]) => name), project: () => openProjects().map(({ name }) => name) }[kind.value];
    const names = offered ? h("datalist", { id: "limit-targets" }, offered().map((name) => h("option", { value: name }))) : null;
    replaceChildren(target, needsId ? field("target", t(`limits.target.${kind.value}`), { required: true, maxlength: 300, autocomplete: "off", list: names ? "limit-targets" : null }) : null, names);
  }
  showTarget();
  let created = null;
  await openDialog({
    title: t("limits.new"),
    fields: [field("scope", t("limits.scopeLabel"), { input: kind }), target, ...limitFields(null)],
    submitLabel: t("limits.create"),
    submit: async (data) => {
      const values = entered(data, null);
      if (Object.values(values).every((value) => value === null)) throw new Error(t("limits.needsOne"));
      const scope = scopeOf(kind.value, data.get("target")?.trim());
      const present = await getJson(pathOf(scope));
      if (present.changedAt && [...KINDS, "budget"].some((name) => present[name] !== null)) throw new Error(t("limits.exists"));
      created = await requestJson("PUT", pathOf(scope), { body: { ...kept(present), ...values } });
    },
  });
  if (created) list.prepend(created);
}

function scopeOf(kind, target) {
  if (target === undefined) return kind;
  const known = { user: knownUsers(), project: openProjects().map(({ id, name }) => [id, name]) }[kind] ?? [];
  return `${kind}:${known.find(([id, name]) => name === target || id === target)?.[0] ?? target}`;
}
