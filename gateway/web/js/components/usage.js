// Usage and cost over time and by group, of one user or of all users, as charts or as tables, and as files for spreadsheets.

import "../locales/record.js";
import { getJson } from "../api.js";
import { csvText, download } from "../csv.js";
import { h, icon, replaceChildren } from "../dom.js";
import { formatBucket, formatCost, formatFullDay, formatShortBucket, formatShortCost, t, timeZone } from "../i18n.js";
import * as live from "../live.js";
import { readQuery, writeQuery } from "../query.js";
import { preferences } from "../storage.js";
import { bucketOf, daysIn, FIRST_DAY, isRange, lastDays, periodBefore, PRESETS, today } from "../usage-range.js";
import { loadingIndicator, notice, segmentedControl } from "./ui.js";
import { countColumns, countTitles, GroupTable, periodTable, tiles } from "./usage-tables.js";

const DEFAULT_DAYS = 30;
/** The interval at which the usage of all users is read again. That of the user comes with live events. */
const RELOAD_INTERVAL_MS = 30_000;

export class UsageView {
  /**
   * `path` is the API route of the usage. `groups` are the groupings that the reader can choose, the default first: `{by, name, loadNames}`, of which
   * `name` gives the name of a key, and `loadNames` resolves once the names of these keys are there. `isOfAll` stands for the usage of all users.
   */
  constructor({ path, groups, isOfAll = false }) {
    Object.assign(this, { path, groups, isOfAll });
    this.view = preferences.get("usage-view") === "table" ? "table" : "chart";
    this.charts = [];
    this.loadId = 0;
    this.renderId = 0;
    this.#readAddress();
    this.body = h("div", {});
    this.dates = h("div.date-range", { hidden: !this.range });
    this.compared = h("p.subtitle", {});
    this.element = h("div.usage", {},
      h("div.section-header", {},
        h("div", {}, h("h2", { id: "usage-title" }, t("usage.title")), h("p.subtitle", {}, t("usage.zone", { zone: timeZone.replaceAll("_", " ") })), this.compared),
        h("div.controls", {},
          segmentedControl(t("usage.range"), [...PRESETS.map((days) => [days, days === 1 ? t("usage.today") : t("usage.days", { n: days })]), [0, t("usage.ownRange")]], this.range ? 0 : this.days, (days) => this.#chooseDays(days)),
          segmentedControl(t("usage.view"), [["chart", t("usage.chart")], ["table", t("usage.table")]], this.view, (view) => { this.view = view; preferences.set("usage-view", view); this.#render(); }),
          h("button.button.secondary.small", { type: "button", "aria-label": t("usage.csvPeriods"), title: t("usage.csvPeriods"), onclick: () => this.#downloadPeriods() }, icon("download"), t("usage.csv")))),
      this.dates, this.body);
    this.#renderDates();
    this.unsubscribe = live.subscribe("usage", () => {
      clearTimeout(this.reloadTimer);
      this.reloadTimer = setTimeout(() => this.load({ silent: true }), 800);
    });
    if (isOfAll) this.reloadInterval = setInterval(() => document.hidden || this.load({ silent: true }), RELOAD_INTERVAL_MS);
    this.onThemeChange = () => this.#render();
    addEventListener("themechange", this.onThemeChange);
    this.load();
  }

  destroy() {
    this.loadId += 1;
    this.renderId += 1;
    this.unsubscribe();
    clearTimeout(this.reloadTimer);
    clearInterval(this.reloadInterval);
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
      const range = this.range ?? lastDays(this.days);
      const before = periodBefore(range);
      const bucket = bucketOf(range);
      const { group } = this;
      const read = (days, more) => getJson(this.path, { tz: timeZone, ...days, ...more });
      const [overTime, grouped, earlier] = await Promise.all([
        read(range, { bucket }), read(range, { bucket: "month", group: group.by }), before ? read(before, { bucket: "month" }) : null,
      ]);
      await group.loadNames?.(grouped.groups.map(({ key }) => key));
      if (loadId !== this.loadId) return;
      const shown = { range, before, bucket, group, overTime, grouped: grouped.groups, earlier: earlier?.total };
      // What has not changed is not drawn again, so that the reader keeps the focus and the place.
      if (silent && JSON.stringify(shown) === JSON.stringify(this.shown)) return;
      this.shown = shown;
      await this.#render();
    } catch (error) {
      if (loadId !== this.loadId || silent) return;
      delete this.element.dataset.shown;
      replaceChildren(this.body, notice("warn", error.message), h("button.button.secondary.small.spaced", { type: "button", onclick: () => this.load() }, t("retry")));
    }
  }

  // --- what the reader chooses

  #readAddress() {
    const { days, from, to, by } = readQuery();
    this.range = isRange({ from, to }) ? { from, to } : null;
    this.days = PRESETS.includes(Number(days)) ? Number(days) : DEFAULT_DAYS;
    this.group = this.groups.find((group) => group.by === by) ?? this.groups[0];
  }

  #writeAddress() {
    const days = this.range ? this.range : { days: this.days === DEFAULT_DAYS ? null : this.days };
    writeQuery({ ...days, by: this.group === this.groups[0] ? null : this.group.by });
  }

  #chooseDays(days) {
    if (days === 0) this.range = this.range ?? lastDays(this.days);
    else Object.assign(this, { days, range: null });
    this.#renderDates();
    if (days === 0) return this.dates.querySelector("input").focus();
    this.#writeAddress();
    this.load();
  }

  #chooseGroup(by) {
    this.group = this.groups.find((group) => group.by === by);
    this.#writeAddress();
    this.load({ silent: true });
  }

  /** Shows the fields for the first and the last day, if the reader has chosen a range of their own. */
  #renderDates() {
    this.dates.hidden = !this.range;
    if (!this.range) return replaceChildren(this.dates);
    const errorArea = h("div.date-error", {});
    const dateField = (name, label) => h("label.inline-field", {}, label, h("input.input", { type: "date", name, min: FIRST_DAY, max: today(), required: true, value: this.range[name] }));
    const fields = [dateField("from", t("usage.from")), dateField("to", t("usage.to"))];
    const choose = () => {
      const [from, to] = fields.map((label) => label.querySelector("input").value);
      const isGood = isRange({ from, to });
      replaceChildren(errorArea, isGood ? null : notice("warn", t("usage.badRange")));
      if (!isGood) return;
      this.range = { from, to };
      this.#writeAddress();
      this.load();
    };
    fields.forEach((label) => label.querySelector("input").addEventListener("change", choose));
    replaceChildren(this.dates, fields, errorArea);
  }

  // --- what is shown

  #destroyCharts() {
    this.charts.forEach((chart) => chart.destroy());
    this.charts = [];
  }

  async #render() {
    if (!this.shown) return;
    const renderId = ++this.renderId;
    const { range, before, bucket, group, overTime, grouped, earlier } = this.shown;
    const { total, buckets } = overTime;
    this.#destroyCharts();
    Object.assign(this.element.dataset, { calls: total.apiCalls, shown: `${range.from} ${range.to} ${bucket} ${group.by}` });
    const days = { from: formatFullDay(range.from), to: formatFullDay(range.to) };
    replaceChildren(this.compared, before ? t("usage.compared", { ...days, beforeFrom: formatFullDay(before.from), beforeTo: formatFullDay(before.to) }) : t("usage.notCompared", days));
    if (total.apiCalls === 0 && total.conversationsCreated === 0) {
      const title = this.range ? t("usage.emptyRange") : t("usage.empty", { n: daysIn(range) });
      replaceChildren(this.body, h("div.card.empty", {}, icon("mark"), h("h3", {}, title), h("p", {}, t("usage.emptyText")), this.isOfAll ? null : h("a.button.primary", { href: "/" }, t("nav.new"))));
      return;
    }
    const view = h("div", {});
    const select = h("select.input.small", { "aria-label": t("usage.group"), onchange: () => this.#chooseGroup(select.value) }, this.groups.map(({ by }) => h("option", { value: by }, t(`usage.by.${by}`))));
    select.value = this.group.by;
    const csvLabel = t("usage.csvGroups", { by: t(`usage.by.${group.by}`) });
    const header = h("div.table-header", {}, select, h("button.button.secondary.small", { type: "button", "aria-label": csvLabel, title: csvLabel, onclick: () => this.#downloadGroups() }, icon("download"), t("usage.csv")));
    this.groupTable = new GroupTable({ by: group.by, groups: grouped, name: (key) => this.#nameOf(key), chosenSort: this.groupTable?.chosenSort });
    const hadFocus = this.body.contains(document.activeElement) && document.activeElement.matches("select");
    replaceChildren(this.body, tiles(total, earlier), view, h("section.card.breakdown", { "aria-label": t(`usage.by.${group.by}`) }, header, this.groupTable.element));
    if (hadFocus) select.focus();
    if (this.view === "table") return view.append(periodTable(buckets, total, bucket));
    const { Chart } = await import("./chart.js");
    if (renderId !== this.renderId) return;
    const values = (member) => buckets.map((counts) => counts[member]);
    const labels = { long: buckets.map(({ label }) => formatBucket(label, bucket)), short: buckets.map(({ label }) => formatShortBucket(label, bucket)) };
    const series = (name, colour, member) => ({ name, colour, values: values(member) });
    this.charts = [
      new Chart({ title: t("usage.callsOver"), labels, lower: series(t("usage.successful"), "--series-1", "successfulCalls"), upper: series(t("usage.failed"), "--series-bad", "failedCalls") }),
      new Chart({ title: t("usage.tokensOver"), labels, lower: series(t("usage.reported"), "--series-1", "totalTokens"), upper: series(t("usage.estimated"), "--series-2", "estimatedTokens") }),
      new Chart({ title: t("usage.costOver"), labels, lower: series(t("usage.reported"), "--series-1", "costNanodollars"), upper: series(t("usage.estimated"), "--series-2", "estimatedCostNanodollars"), format: formatCost, formatTick: formatShortCost }),
    ];
    replaceChildren(view, h("div.charts", {}, this.charts.map((chart) => chart.element)));
    this.charts.forEach((chart) => chart.draw());
  }

  #nameOf(key) {
    const { by, name } = this.shown.group;
    if (key === null) return t(`usage.none.${by}`);
    return key === "other" ? t("usage.others") : name?.(key) ?? key;
  }

  // --- files

  #downloadPeriods() {
    if (!this.shown) return;
    const { bucket, overTime } = this.shown;
    const rows = overTime.buckets.map((counts) => [counts.label, counts.start, counts.end, ...countColumns(counts)]);
    this.#download(bucket, [[bucket, "start", "end", ...countTitles()], ...rows]);
  }

  #downloadGroups() {
    const { group } = this.shown;
    const rows = this.groupTable.sorted().map((counts) => [counts.key, this.#nameOf(counts.key), ...countColumns(counts)]);
    this.#download(group.by, [[group.by, "name", ...countTitles()], ...rows]);
  }

  #download(what, rows) {
    const { range } = this.shown;
    download(`stenograph-usage-${range.from}-${range.to}-${what}.csv`, csvText(rows), "text/csv;charset=utf-8");
  }
}
