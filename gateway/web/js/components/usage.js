// What was used, day by day and by model: of one user, or of all.

import { get } from "../api.js";
import { append, fill, h, icon } from "../dom.js";
import { compact, day, number, percent, t, timeZone } from "../i18n.js";
import * as live from "../live.js";
import { preferences } from "../storage.js";
import { loading, notice, segmented } from "./ui.js";

const DAYS = [7, 30, 90];

export class Usage {
  /** `path` answers usage; `users`, where given, finds names for the ids of users. */
  constructor({ path, users = null }) {
    this.path = path;
    this.users = users;
    this.days = 30;
    this.view = preferences.get("usage-view") === "table" ? "table" : "chart";
    this.charts = [];
    this.turn = 0;
    this.body = h("div", {});
    this.element = h("div.usage", {},
      h("div.section-head", {},
        h("div", {}, h("h2", { id: "usage-title" }, t("usage.title")), h("p.sub", {}, t("usage.zone", { zone: timeZone.replaceAll("_", " ") }))),
        h("div.controls", {},
          segmented(t("usage.range"), DAYS.map((days) => [days, t("usage.days", { n: days })]), this.days, (days) => { this.days = days; this.load(); }),
          segmented(t("usage.view"), [["chart", t("usage.chart")], ["table", t("usage.table")]], this.view, (view) => { this.view = view; preferences.set("usage-view", view); this.#show(); }))),
      this.body);
    this.stop = live.on("usage", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.load({ quietly: true }), 800);
    });
    this.onTheme = () => this.#show();
    addEventListener("themechange", this.onTheme);
    this.load();
  }

  leave() {
    this.turn += 1;
    this.stop();
    clearTimeout(this.timer);
    removeEventListener("themechange", this.onTheme);
    this.#clear();
  }

  async load({ quietly = false } = {}) {
    const turn = ++this.turn;
    if (!quietly) {
      this.#clear();
      fill(this.body, loading());
    }
    try {
      const range = { tz: timeZone, ...lastDays(this.days) };
      const [byDay, byModel, byUser] = await Promise.all([
        get(this.path, { ...range, bucket: "day" }),
        get(this.path, { ...range, bucket: "month", group: "model" }),
        this.users ? get(this.path, { ...range, bucket: "month", group: "user" }) : null,
      ]);
      if (this.users) await this.users.load(byUser.groups.map((group) => group.key));
      if (turn !== this.turn) return;
      Object.assign(this, { byDay, byModel, byUser });
      await this.#show();
    } catch (error) {
      if (turn !== this.turn || quietly) return;
      fill(this.body, notice("warn", error.message), h("button.button.secondary.small.after", { type: "button", onclick: () => this.load() }, t("retry")));
    }
  }

  #clear() {
    this.charts.forEach((chart) => chart.leave());
    this.charts = [];
  }

  async #show() {
    if (!this.byDay) return;
    const { total, buckets } = this.byDay;
    this.#clear();
    this.element.dataset.calls = total.apiCalls;
    if (total.apiCalls === 0 && total.conversationsCreated === 0) {
      fill(this.body, h("div.sheet.empty", {}, icon("mark"), h("h3", {}, t("usage.none", { n: this.days })), h("p", {}, t("usage.noneWords")), this.users ? null : h("a.button.primary", { href: "/" }, t("nav.new"))));
      return;
    }
    const view = h("div", {});
    fill(this.body, tiles(total), view,
      h("div.halves", {}, groupTable(t("usage.byModel"), t("usage.model"), this.byModel.groups, (key) => key ?? null),
        this.byUser ? groupTable(t("usage.byUser"), t("usage.user"), this.byUser.groups, (key) => this.users.name(key)) : null));
    if (this.view === "table") {
      append(view, [dayTable(buckets, total)]);
    } else {
      const turn = this.turn;
      const { Chart } = await import("./chart.js");
      if (turn !== this.turn) return;
      const labels = buckets.map((bucket) => bucket.label);
      this.charts = [
        new Chart({ title: t("usage.callsPerDay"), labels, lower: { name: t("usage.successful"), colour: "--series-1", values: buckets.map((bucket) => bucket.successfulCalls) }, upper: { name: t("usage.failed"), colour: "--series-bad", values: buckets.map((bucket) => bucket.failedCalls) } }),
        new Chart({ title: t("usage.tokensPerDay"), labels, lower: { name: t("usage.reported"), colour: "--series-1", values: buckets.map((bucket) => bucket.totalTokens) }, upper: { name: t("usage.estimated"), colour: "--series-2", values: buckets.map((bucket) => bucket.estimatedTokens) } }),
      ];
      fill(view, h("div.charts", {}, this.charts.map((chart) => chart.element)));
      this.charts.forEach((chart) => chart.draw());
    }
  }
}

/** The last days in the reader's zone, today included. */
function lastDays(days) {
  const name = new Intl.DateTimeFormat("en-CA", { timeZone, year: "numeric", month: "2-digit", day: "2-digit" }).format(new Date());
  const from = new Date(`${name}T00:00:00Z`);
  from.setUTCDate(from.getUTCDate() - days + 1);
  return { from: from.toISOString().slice(0, 10), to: name };
}

function tiles(total) {
  const failing = total.apiCalls ? percent(total.failedCalls / total.apiCalls) : percent(0);
  const list = [
    ["calls", t("usage.calls"), total.apiCalls, t("usage.messages", { n: total.messagesCreated })],
    ["tokens", t("usage.tokensReported"), total.totalTokens, t("usage.inOut", { input: compact(total.promptTokens), output: compact(total.completionTokens) })],
    ["estimated", t("usage.tokensEstimated"), total.estimatedTokens, t("usage.whereUnreported")],
    ["failures", t("usage.failures"), total.failedCalls, t("usage.ofCalls", { share: failing })],
  ];
  return h("dl.tiles", {}, list.map(([key, name, value, more]) => h("div.tile", { "data-figure": key, "data-value": value }, h("dt", {}, name), h("dd", {}, h("strong", { title: number(value) }, value < 1_000_000 ? number(value) : compact(value)), h("span", {}, more)))));
}

function dayTable(buckets, total) {
  const used = buckets.filter((bucket) => bucket.apiCalls || bucket.conversationsCreated).reverse();
  const cells = (counts) => [counts.apiCalls, counts.failedCalls, counts.promptTokens, counts.completionTokens, counts.totalTokens, counts.estimatedTokens].map((value) => h("td", {}, number(value)));
  return h("div.sheet.table-sheet", { tabindex: "0", role: "group", "aria-labelledby": "usage-title" }, h("table.figures.days", {},
    h("caption", {}, t("usage.tableWords")),
    h("thead", {}, h("tr", {}, [t("usage.day"), t("usage.calls"), t("usage.failed"), t("usage.input"), t("usage.output"), t("usage.reported"), t("usage.estimated")].map((words) => h("th", { scope: "col" }, words)))),
    h("tbody", {}, used.map((bucket) => h("tr", { "data-day": bucket.label }, h("th", { scope: "row" }, day(bucket.label)), cells(bucket)))),
    h("tfoot", {}, h("tr", {}, h("th", { scope: "row" }, t("usage.total")), cells(total)))));
}

function groupTable(title, column, groups, name) {
  const named = groups.filter((group) => group.apiCalls > 0);
  const most = Math.max(1, ...named.map((group) => group.apiCalls));
  return h("div.sheet.table-sheet", { tabindex: "0", role: "group", "aria-label": title }, h("table.figures.groups", {},
    h("caption.shown", {}, title),
    h("thead", {}, h("tr", {}, [column, t("usage.calls"), t("usage.failed"), t("usage.tokens")].map((words) => h("th", { scope: "col" }, words)))),
    h("tbody", {}, named.map((group) => {
      const bar = h("span.bar-fill", { "aria-hidden": "true" });
      bar.style.setProperty("width", `${(100 * group.apiCalls) / most}%`);
      return h("tr", { "data-key": group.key }, h("th", { scope: "row" }, h("span.bar-label", {}, name(group.key) ?? t("usage.unknown")), bar),
        h("td", {}, number(group.apiCalls)), h("td", {}, number(group.failedCalls)), h("td", { title: t("usage.split", { reported: group.totalTokens, estimated: group.estimatedTokens }) }, number(group.totalTokens), group.estimatedTokens ? h("small", {}, ` + ~${number(group.estimatedTokens)}`) : null));
    }))));
}
