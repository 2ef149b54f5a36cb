// The figures of usage: tiles with the sums, a table over time, a table by group, and the columns of files.

import { exactDollars } from "../csv.js";
import { h, icon, replaceChildren } from "../dom.js";
import { formatBucket, formatChange, formatCompact, formatCost, formatNumber, formatPercent, formatShortCost, t } from "../i18n.js";

/** The counts of a file: titles for programs, and the members of the API. Costs are dollars. */
const COLUMNS = [
  ["calls", "apiCalls"], ["successful_calls", "successfulCalls"], ["failed_calls", "failedCalls"],
  ["input_tokens", "promptTokens"], ["output_tokens", "completionTokens"], ["tokens", "totalTokens"],
  ["estimated_input_tokens", "estimatedPromptTokens"], ["estimated_output_tokens", "estimatedCompletionTokens"], ["estimated_tokens", "estimatedTokens"],
  ["messages", "messagesCreated"], ["conversations", "conversationsCreated"],
  ["cost_usd", "costNanodollars"], ["estimated_cost_usd", "estimatedCostNanodollars"], ["provider_cost_usd", "providerCostNanodollars"], ["unpriced_calls", "unpricedCalls"],
];

export const countTitles = () => COLUMNS.map(([title]) => title);
export const countColumns = (counts) => COLUMNS.map(([, member]) => (member.endsWith("Nanodollars") ? exactDollars(counts[member]) : counts[member]));

/** Formats a number in full below one million, and rounded above. */
const shortNumber = (value) => (value < 1_000_000 ? formatNumber(value) : formatCompact(value));

/** The sums of a range, each beside that of the range before, if there is one. */
export function tiles(total, earlier) {
  const failureShare = total.apiCalls ? formatPercent(total.failedCalls / total.apiCalls) : formatPercent(0);
  const unpriced = total.unpricedCalls ? t("usage.unpriced", { n: total.unpricedCalls }) : t("usage.allPriced");
  const providers = total.providerCostNanodollars ? t("usage.providerCost", { cost: formatCost(total.providerCostNanodollars) }) : t("usage.estimatedNote");
  const list = [
    ["calls", t("usage.calls"), "apiCalls", t("usage.messages", { n: total.messagesCreated })],
    ["tokens", t("usage.tokensReported"), "totalTokens", t("usage.inputOutput", { input: formatCompact(total.promptTokens), output: formatCompact(total.completionTokens) })],
    ["cost", t("usage.costReported"), "costNanodollars", unpriced],
    ["failures", t("usage.failures"), "failedCalls", t("usage.ofCalls", { share: failureShare })],
    ["estimated", t("usage.tokensEstimated"), "estimatedTokens", t("usage.estimatedNote")],
    ["estimatedCost", t("usage.costEstimated"), "estimatedCostNanodollars", providers],
  ];
  return h("dl.tiles", {}, list.map(([key, label, member, note]) => {
    const isMoney = member.endsWith("Nanodollars");
    const value = total[member];
    return h("div.tile", { "data-figure": key, "data-value": value, "data-before": earlier?.[member] }, h("dt", {}, label),
      h("dd", {}, h("strong", { title: isMoney ? `$${exactDollars(value)}` : formatNumber(value) }, isMoney ? formatShortCost(value) : shortNumber(value)), h("span", {}, note),
        earlier ? h("span.change", {}, change(value, earlier[member], isMoney ? formatShortCost : shortNumber)) : null));
  }));
}

function change(value, before, format) {
  return before === 0 ? t("usage.beforeOnly", { value: format(0) }) : t("usage.before", { change: formatChange(value / before - 1), value: format(before) });
}

/** The columns of the table over time: title, member of the API, and format. */
const periodColumns = () => [
  [t("usage.calls"), "apiCalls"], [t("usage.failed"), "failedCalls"], [t("usage.input"), "promptTokens"], [t("usage.output"), "completionTokens"],
  [t("usage.reported"), "totalTokens"], [t("usage.estimated"), "estimatedTokens"], [t("usage.cost"), "costNanodollars"], [t("usage.costEstimatedShort"), "estimatedCostNanodollars"], [t("usage.unpricedShort"), "unpricedCalls"],
];

export function periodTable(buckets, total, bucket) {
  const used = buckets.filter((counts) => counts.apiCalls || counts.conversationsCreated).reverse();
  const cells = (counts) => periodColumns().map(([, member]) => h("td", { "data-member": member, "data-value": counts[member] }, (member.endsWith("Nanodollars") ? formatCost : formatNumber)(counts[member])));
  return h("div.card.table-card", { tabindex: "0", role: "group", "aria-labelledby": "usage-title" }, h("table.data-table.days", {},
    h("caption", {}, h("span", {}, t("usage.tableNote"))),
    h("thead", {}, h("tr", {}, [t(`usage.period.${bucket}`), ...periodColumns().map(([title]) => title)].map((label) => h("th", { scope: "col" }, label)))),
    h("tbody", {}, used.map((counts) => h("tr", { "data-day": counts.label }, h("th", { scope: "row" }, formatBucket(counts.label, bucket)), cells(counts)))),
    h("tfoot", {}, h("tr", {}, h("th", { scope: "row" }, t("usage.total")), cells(total)))));
}

/** The numbers by which groups can be sorted, and the number of a group. */
const MEASURES = {
  calls: (group) => group.apiCalls,
  failed: (group) => group.failedCalls,
  tokens: (group) => group.totalTokens + group.estimatedTokens,
  cost: (group) => group.costNanodollars + group.estimatedCostNanodollars,
};

/** The table by group. The bar beside a name shows the number by which the table is sorted. */
export class GroupTable {
  /** `name` gives the name of a key, and `chosenSort` is the number to sort by, of `MEASURES`, if the reader has chosen one. */
  constructor({ by, groups, name, chosenSort = null }) {
    Object.assign(this, { by, name, chosenSort });
    this.groups = groups.filter((group) => group.apiCalls > 0);
    this.sort = chosenSort ?? (this.groups.some((group) => MEASURES.cost(group) > 0) ? "cost" : "calls");
    this.element = h("div.table-card", { tabindex: "0", role: "group", "aria-label": t(`usage.by.${by}`) });
    this.#render();
  }

  /** The groups, the largest first. */
  sorted() {
    const measure = MEASURES[this.sort];
    return [...this.groups].sort((a, b) => measure(b) - measure(a) || b.apiCalls - a.apiCalls);
  }

  #render() {
    const measure = MEASURES[this.sort];
    const most = Math.max(1, ...this.groups.map(measure));
    const column = (sort) => {
      const label = t(`usage.${sort}`);
      const isChosen = sort === this.sort;
      return h("th", { scope: "col", "aria-sort": isChosen ? "descending" : null }, h("button.sort", { type: "button", "aria-label": t("usage.sort", { column: label }), onclick: () => this.#sortBy(sort) }, label, isChosen ? icon("sorted") : null));
    };
    replaceChildren(this.element, h("table.data-table.groups", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, t(`usage.column.${this.by}`)), Object.keys(MEASURES).map(column))),
      h("tbody", {}, this.sorted().map((group) => this.#row(group, measure(group) / most)))));
  }

  #sortBy(sort) {
    this.sort = this.chosenSort = sort;
    this.#render();
    this.element.querySelector("[aria-sort] button").focus();
  }

  #row(group, share) {
    const bar = h("span.share-bar", { "aria-hidden": "true" });
    bar.style.setProperty("width", `${100 * share}%`);
    const name = this.name(group.key);
    const cell = (member, ...children) => h("td", { "data-member": member, "data-value": group[member] }, ...children);
    return h("tr", { "data-key": group.key ?? "" }, h("th", { scope: "row" }, h("span.group-name", { title: name }, name), bar),
      cell("apiCalls", formatNumber(group.apiCalls)), cell("failedCalls", formatNumber(group.failedCalls)),
      cell("totalTokens", h("span", { title: t("usage.split", { reported: group.totalTokens, estimated: group.estimatedTokens }) }, shortNumber(group.totalTokens)), group.estimatedTokens ? h("small", { "data-estimated": group.estimatedTokens }, `+ ~${shortNumber(group.estimatedTokens)}`) : null),
      cell("costNanodollars", formatCost(group.costNanodollars),
        group.estimatedCostNanodollars ? h("small", { "data-estimated": group.estimatedCostNanodollars }, `+ ~${formatCost(group.estimatedCostNanodollars)}`) : null,
        group.unpricedCalls ? h("small", { "data-unpriced": group.unpricedCalls }, t("usage.unpriced", { n: group.unpricedCalls })) : null));
  }
}
