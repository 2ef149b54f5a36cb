// Usage by day and by model, of one user or of all users, as charts or as a table.

import { getJson } from "../api.js";
import { h, icon, replaceChildren } from "../dom.js";
import { formatCompact, formatDay, formatNumber, formatPercent, t, timeZone } from "../i18n.js";
import * as live from "../live.js";
import { preferences } from "../storage.js";
import { loadingIndicator, notice, segmentedControl } from "./ui.js";

const DAYS = [7, 30, 90];

export class UsageView {
  /** `path` is the API route of the usage. `users`, if given, resolves user ids to names and adds the table by user. */
  constructor({ path, users = null }) {
    this.path = path;
    this.users = users;
    this.days = 30;
    this.view = preferences.get("usage-view") === "table" ? "table" : "chart";
    this.charts = [];
    this.loadId = 0;
    this.body = h("div", {});
    this.element = h("div.usage", {},
      h("div.section-header", {},
        h("div", {}, h("h2", { id: "usage-title" }, t("usage.title")), h("p.subtitle", {}, t("usage.zone", { zone: timeZone.replaceAll("_", " ") }))),
        h("div.controls", {},
          segmentedControl(t("usage.range"), DAYS.map((days) => [days, t("usage.days", { n: days })]), this.days, (days) => { this.days = days; this.load(); }),
          segmentedControl(t("usage.view"), [["chart", t("usage.chart")], ["table", t("usage.table")]], this.view, (view) => { this.view = view; preferences.set("usage-view", view); this.#render(); }))),
      this.body);
    this.unsubscribe = live.subscribe("usage", () => {
      clearTimeout(this.reloadTimer);
      this.reloadTimer = setTimeout(() => this.load({ silent: true }), 800);
    });
    this.onThemeChange = () => this.#render();
    addEventListener("themechange", this.onThemeChange);
    this.load();
  }

  destroy() {
    this.loadId += 1;
    this.unsubscribe();
    clearTimeout(this.reloadTimer);
    removeEventListener("themechange", this.onThemeChange);
    this.#destroyCharts();
  }

  async load({ silent = false } = {}) {
    const loadId = ++this.loadId;
    if (!silent) {
      this.#destroyCharts();
      replaceChildren(this.body, loadingIndicator());
    }
    try {
      const range = { tz: timeZone, ...dateRange(this.days) };
      const [byDay, byModel, byUser] = await Promise.all([
        getJson(this.path, { ...range, bucket: "day" }),
        getJson(this.path, { ...range, bucket: "month", group: "model" }),
        this.users ? getJson(this.path, { ...range, bucket: "month", group: "user" }) : null,
      ]);
      if (this.users) await this.users.load(byUser.groups.map((group) => group.key));
      if (loadId !== this.loadId) return;
      Object.assign(this, { byDay, byModel, byUser });
      await this.#render();
    } catch (error) {
      if (loadId !== this.loadId || silent) return;
      replaceChildren(this.body, notice("warn", error.message), h("button.button.secondary.small.spaced", { type: "button", onclick: () => this.load() }, t("retry")));
    }
  }

  #destroyCharts() {
    this.charts.forEach((chart) => chart.destroy());
    this.charts = [];
  }

  async #render() {
    if (!this.byDay) return;
    const { total, buckets } = this.byDay;
    this.#destroyCharts();
    this.element.dataset.calls = total.apiCalls;
    if (total.apiCalls === 0 && total.conversationsCreated === 0) {
      replaceChildren(this.body, h("div.card.empty", {}, icon("mark"), h("h3", {}, t("usage.empty", { n: this.days })), h("p", {}, t("usage.emptyText")), this.users ? null : h("a.button.primary", { href: "/" }, t("nav.new"))));
      return;
    }
    const view = h("div", {});
    replaceChildren(this.body, tiles(total), view,
      h("div.columns", {}, groupTable(t("usage.byModel"), t("usage.model"), this.byModel.groups, (key) => key ?? null),
        this.byUser ? groupTable(t("usage.byUser"), t("usage.user"), this.byUser.groups, (key) => this.users.name(key)) : null));
    if (this.view === "table") {
      view.append(dayTable(buckets, total));
    } else {
      const loadId = this.loadId;
      const { Chart } = await import("./chart.js");
      if (loadId !== this.loadId) return;
      const labels = buckets.map((bucket) => bucket.label);
      this.charts = [
        new Chart({ title: t("usage.callsPerDay"), labels, lower: { name: t("usage.successful"), colour: "--series-1", values: buckets.map((bucket) => bucket.successfulCalls) }, upper: { name: t("usage.failed"), colour: "--series-bad", values: buckets.map((bucket) => bucket.failedCalls) } }),
        new Chart({ title: t("usage.tokensPerDay"), labels, lower: { name: t("usage.reported"), colour: "--series-1", values: buckets.map((bucket) => bucket.totalTokens) }, upper: { name: t("usage.estimated"), colour: "--series-2", values: buckets.map((bucket) => bucket.estimatedTokens) } }),
      ];
      replaceChildren(view, h("div.charts", {}, this.charts.map((chart) => chart.element)));
      this.charts.forEach((chart) => chart.draw());
    }
  }
}

/** The range of the last days in the user's time zone, including today. */
function dateRange(days) {
  const today = new Intl.DateTimeFormat("en-CA", { timeZone, year: "numeric", month: "2-digit", day: "2-digit" }).format(new Date());
  const from = new Date(`${today}T00:00:00Z`);
  from.setUTCDate(from.getUTCDate() - days + 1);
  return { from: from.toISOString().slice(0, 10), to: today };
}

/** Formats a number in full below one million, and rounded above. */
const shortNumber = (value) => (value < 1_000_000 ? formatNumber(value) : formatCompact(value));

function tiles(total) {
  const failureShare = total.apiCalls ? formatPercent(total.failedCalls / total.apiCalls) : formatPercent(0);
  const list = [
    ["calls", t("usage.calls"), total.apiCalls, t("usage.messages", { n: total.messagesCreated })],
    ["tokens", t("usage.tokensReported"), total.totalTokens, t("usage.inputOutput", { input: formatCompact(total.promptTokens), output: formatCompact(total.completionTokens) })],
    ["estimated", t("usage.tokensEstimated"), total.estimatedTokens, t("usage.estimatedNote")],
    ["failures", t("usage.failures"), total.failedCalls, t("usage.ofCalls", { share: failureShare })],
  ];
  return h("dl.tiles", {}, list.map(([key, label, value, note]) => h("div.tile", { "data-figure": key, "data-value": value }, h("dt", {}, label), h("dd", {}, h("strong", { title: formatNumber(value) }, shortNumber(value)), h("span", {}, note)))));
}

function dayTable(buckets, total) {
  const used = buckets.filter((bucket) => bucket.apiCalls || bucket.conversationsCreated).reverse();
  const cells = (counts) => [counts.apiCalls, counts.failedCalls, counts.promptTokens, counts.completionTokens, counts.totalTokens, counts.estimatedTokens].map((value) => h("td", {}, formatNumber(value)));
  return h("div.card.table-card", { tabindex: "0", role: "group", "aria-labelledby": "usage-title" }, h("table.data-table.days", {},
    h("caption", {}, h("span", {}, t("usage.tableNote"))),
    h("thead", {}, h("tr", {}, [t("usage.day"), t("usage.calls"), t("usage.failed"), t("usage.input"), t("usage.output"), t("usage.reported"), t("usage.estimated")].map((label) => h("th", { scope: "col" }, label)))),
    h("tbody", {}, used.map((bucket) => h("tr", { "data-day": bucket.label }, h("th", { scope: "row" }, formatDay(bucket.label)), cells(bucket)))),
    h("tfoot", {}, h("tr", {}, h("th", { scope: "row" }, t("usage.total")), cells(total)))));
}

function groupTable(title, column, groups, displayName) {
  const used = groups.filter((group) => group.apiCalls > 0).sort((a, b) => b.apiCalls - a.apiCalls);
  const maxCalls = Math.max(1, ...used.map((group) => group.apiCalls));
  return h("div.card.table-card", { tabindex: "0", role: "group", "aria-label": title }, h("table.data-table.groups", {},
    h("caption.title", {}, title),
    h("thead", {}, h("tr", {}, [column, t("usage.calls"), t("usage.failed"), t("usage.tokens")].map((label) => h("th", { scope: "col" }, label)))),
    h("tbody", {}, used.map((group) => {
      const bar = h("span.share-bar", { "aria-hidden": "true" });
      bar.style.setProperty("width", `${(100 * group.apiCalls) / maxCalls}%`);
      return h("tr", { "data-key": group.key }, h("th", { scope: "row" }, h("span.group-name", {}, displayName(group.key) ?? t("usage.unknown")), bar),
        h("td", {}, formatNumber(group.apiCalls)), h("td", {}, formatNumber(group.failedCalls)), h("td", { title: t("usage.split", { reported: group.totalTokens, estimated: group.estimatedTokens }) }, shortNumber(group.totalTokens), group.estimatedTokens ? h("small", {}, `+ ~${shortNumber(group.estimatedTokens)}`) : null));
    }))));
}
