// A bar chart of two stacked series over time, drawn by uPlot. The mouse and the arrow keys show the numbers of a bar; the same
// numbers are in the table.

import uPlot from "../../vendor/uplot-1.6.32/uPlot.esm.js";
import { h, replaceChildren } from "../dom.js";
import { formatCompact, formatNumber, t } from "../i18n.js";

const HEIGHT = 190;

export class Chart {
  /**
   * `lower` and `upper` are `{name, colour, values}`; `colour` names a CSS variable. `labels` are the names of the bars, `long` and `short`.
   * `format` formats a value and `formatTick` a value of the axis, if they are no plain numbers.
   */
  constructor({ title, labels, lower, upper, format = formatNumber, formatTick = formatCompact }) {
    Object.assign(this, { labels: labels.long, shortLabels: labels.short, lower, upper, format, formatTick });
    this.plotArea = h("div.plot", {});
    this.tooltip = h("div.tooltip", { hidden: true });
    const sum = (values) => values.reduce((a, b) => a + b, 0);
    const description = t("chart.description", { title, lower: lower.name, upper: upper.name, a: this.format(sum(lower.values)), b: this.format(sum(upper.values)) });
    this.frame = h("div.plot-frame", { role: "img", tabindex: "0", "aria-label": description, onkeydown: (event) => this.#handleKey(event), onblur: () => this.plot?.setCursor({ left: -10, top: -10 }) }, this.plotArea, this.tooltip);
    this.element = h("figure.card.chart", {},
      h("figcaption", {}, h("h3", {}, title), h("div.legend", {}, [lower, upper].map((series) => {
        const swatch = h("i", {});
        swatch.style.setProperty("background", `var(${series.colour})`);
        return h("span", {}, swatch, series.name);
      }))),
      this.frame, h("div.visually-hidden", { "aria-live": "polite" }));
    this.liveRegion = this.element.lastChild;
    this.resizeObserver = new ResizeObserver(() => this.plot && this.plot.setSize({ width: this.plotArea.clientWidth, height: HEIGHT }));
  }

  destroy() {
    this.resizeObserver.disconnect();
    this.plot?.destroy();
  }

  /** Draws the chart. The element must be in the document, because the width and the colours are computed there. */
  draw() {
    const { lower, upper, labels } = this;
    const labelColour = this.#resolveColour("--text-muted");
    const gridColour = this.#resolveColour("--border");
    const bars = uPlot.paths.bars({ size: [0.68, 26], radius: [0.25, 0] });
    const series = ({ name, colour }) => ({ label: name, fill: this.#resolveColour(colour), stroke: this.#resolveColour(colour), width: 0, paths: bars, points: { show: false } });
    const axis = { stroke: labelColour, font: `12px ${getComputedStyle(document.body).fontFamily}`, ticks: { show: false } };
    const data = [labels.map((_, index) => index), lower.values.map((value, index) => value + upper.values[index]), lower.values];
    this.plot = new uPlot({
      width: this.plotArea.clientWidth || 300,
      height: HEIGHT,
      padding: [10, 8, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { setScale: false, x: false, y: false }, dataIdx: (_, __, found) => found },
      scales: { x: { time: false, range: [-0.6, labels.length - 0.4] }, y: { range: (_, __, max) => [0, Math.max(4, max * 1.08)] } },
      axes: [
        { ...axis, size: 26, gap: 6, grid: { show: false }, space: 56, incrs: [1, 2, 3, 5, 6, 7, 10, 12, 14, 15, 30], values: (_, ticks) => ticks.map((index) => (Number.isInteger(index) ? this.shortLabels[index] ?? "" : "")) },
        { ...axis, size: this.format === formatNumber ? 48 : 72, grid: { stroke: gridColour, width: 1 }, space: 36, incrs: integerSteps(), values: (_, ticks) => ticks.map((value) => this.formatTick(value)) },
      ],
      series: [{}, series(upper), series(lower)],
      hooks: { setCursor: [(plot) => this.#showTooltip(plot.cursor.idx)] },
    }, data, this.plotArea);
    this.resizeObserver.observe(this.plotArea);
  }

  #resolveColour(name) {
    const probe = h("span", {});
    probe.style.setProperty("color", `var(${name})`);
    this.element.append(probe);
    const colour = getComputedStyle(probe).color;
    probe.remove();
    return colour;
  }

  #showTooltip(index) {
    const isShown = index !== null && index !== undefined && this.plot.cursor.left >= 0;
    this.tooltip.hidden = !isShown;
    if (!isShown) return;
    const { lower, upper, labels } = this;
    replaceChildren(this.tooltip, h("strong", {}, labels[index]), [lower, upper].map((series) => {
      const swatch = h("i", {});
      swatch.style.setProperty("background", `var(${series.colour})`);
      return h("span", {}, swatch, series.name, h("b", {}, this.format(series.values[index])));
    }));
    const centre = this.plot.valToPos(index, "x") + this.plot.over.offsetLeft;
    const left = Math.min(Math.max(0, centre - this.tooltip.offsetWidth / 2), this.frame.clientWidth - this.tooltip.offsetWidth);
    this.tooltip.style.setProperty("left", `${left}px`);
    this.tooltipIndex = index;
  }

  #handleKey(event) {
    const last = this.labels.length - 1;
    const current = this.tooltip.hidden ? last : this.tooltipIndex;
    const target = { ArrowLeft: this.tooltip.hidden ? last : current - 1, ArrowRight: this.tooltip.hidden ? last : current + 1, Home: 0, End: last }[event.key];
    if (event.key === "Escape") this.plot.setCursor({ left: -10, top: -10 });
    if (target === undefined) return;
    event.preventDefault();
    const index = Math.min(Math.max(0, target), last);
    this.plot.setCursor({ left: this.plot.valToPos(index, "x"), top: 10 });
    this.#showTooltip(index);
    this.liveRegion.textContent = `${this.labels[index]}: ${this.lower.name} ${this.format(this.lower.values[index])}, ${this.upper.name} ${this.format(this.upper.values[index])}`;
  }
}

/** Tick distances of an axis of integers. */
function integerSteps() {
  const steps = [];
  for (let power = 1; power <= 1e15; power *= 10) steps.push(power, 2 * power, 5 * power);
  return steps;
}
