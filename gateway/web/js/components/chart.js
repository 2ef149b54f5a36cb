// Two stacked series over days, drawn by uPlot. By mouse and by arrow keys each day's numbers can be read; the same numbers
// are in the table.

import uPlot from "../../vendor/uplot-1.6.32/uPlot.esm.js";
import { fill, h } from "../dom.js";
import { compact, day, number, shortDay, t } from "../i18n.js";

const HEIGHT = 190;

export class Chart {
  /** `lower` and `upper` are `{name, colour, values}`; a column is as high as both. */
  constructor({ title, labels, lower, upper }) {
    Object.assign(this, { labels, lower, upper });
    this.place = h("div.plot", {});
    this.tip = h("div.tip", { hidden: true });
    const sum = (values) => values.reduce((a, b) => a + b, 0);
    const words = t("chart.words", { title, lower: lower.name, upper: upper.name, a: sum(lower.values), b: sum(upper.values) });
    this.frame = h("div.plot-frame", { role: "img", tabindex: "0", "aria-label": words, onkeydown: (event) => this.#key(event), onblur: () => this.plot?.setCursor({ left: -10, top: -10 }) }, this.place, this.tip);
    this.element = h("figure.sheet.chart", {},
      h("figcaption", {}, h("h3", {}, title), h("div.legend", {}, [lower, upper].map((series) => {
        const swatch = h("i", {});
        swatch.style.setProperty("background", `var(${series.colour})`);
        return h("span", {}, swatch, series.name);
      }))),
      this.frame, h("div.visually-hidden", { "aria-live": "polite" }));
    this.said = this.element.lastChild;
    this.watch = new ResizeObserver(() => this.plot && this.plot.setSize({ width: this.place.clientWidth, height: HEIGHT }));
  }

  leave() {
    this.watch.disconnect();
    this.plot?.destroy();
  }

  /** Draws, once the element is in the document: only there it has a width and colours. */
  draw() {
    const { lower, upper, labels } = this;
    const ink = this.#colour("--ink-3");
    const line = this.#colour("--line");
    const bars = uPlot.paths.bars({ size: [0.68, 26], radius: [0.25, 0] });
    const series = ({ name, colour }) => ({ label: name, fill: this.#colour(colour), stroke: this.#colour(colour), width: 0, paths: bars, points: { show: false } });
    const axis = { stroke: ink, font: `12px ${getComputedStyle(document.body).fontFamily}`, ticks: { show: false } };
    const data = [labels.map((_, place) => place), lower.values.map((value, place) => value + upper.values[place]), lower.values];
    this.plot = new uPlot({
      width: this.place.clientWidth || 300,
      height: HEIGHT,
      padding: [10, 8, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { setScale: false, x: false, y: false }, dataIdx: (_, __, found) => found },
      scales: { x: { time: false, range: [-0.6, labels.length - 0.4] }, y: { range: (_, __, most) => [0, Math.max(4, most * 1.08)] } },
      axes: [
        { ...axis, size: 26, gap: 6, grid: { show: false }, space: 56, incrs: [1, 2, 5, 7, 10, 14, 15, 30], values: (_, at) => at.map((place) => (Number.isInteger(place) && labels[place] ? shortDay(labels[place]) : "")) },
        { ...axis, size: 48, grid: { stroke: line, width: 1 }, space: 36, incrs: whole(), values: (_, at) => at.map((value) => compact(value)) },
      ],
      series: [{}, series(upper), series(lower)],
      hooks: { setCursor: [(plot) => this.#point(plot.cursor.idx)] },
    }, data, this.place);
    this.watch.observe(this.place);
  }

  #colour(name) {
    const probe = h("span", {});
    probe.style.setProperty("color", `var(${name})`);
    this.element.append(probe);
    const colour = getComputedStyle(probe).color;
    probe.remove();
    return colour;
  }

  #point(place) {
    const isShown = place !== null && place !== undefined && this.plot.cursor.left >= 0;
    this.tip.hidden = !isShown;
    if (!isShown) return;
    const { lower, upper, labels } = this;
    fill(this.tip, h("strong", {}, day(labels[place])), [lower, upper].map((series) => {
      const swatch = h("i", {});
      swatch.style.setProperty("background", `var(${series.colour})`);
      return h("span", {}, swatch, series.name, h("b", {}, number(series.values[place])));
    }));
    const at = this.plot.valToPos(place, "x") + this.plot.over.offsetLeft;
    const left = Math.min(Math.max(0, at - this.tip.offsetWidth / 2), this.frame.clientWidth - this.tip.offsetWidth);
    this.tip.style.setProperty("left", `${left}px`);
    this.at = place;
  }

  #key(event) {
    const last = this.labels.length - 1;
    const at = this.tip.hidden ? last : this.at;
    const to = { ArrowLeft: this.tip.hidden ? last : at - 1, ArrowRight: this.tip.hidden ? last : at + 1, Home: 0, End: last }[event.key];
    if (event.key === "Escape") this.plot.setCursor({ left: -10, top: -10 });
    if (to === undefined) return;
    event.preventDefault();
    const place = Math.min(Math.max(0, to), last);
    this.plot.setCursor({ left: this.plot.valToPos(place, "x"), top: 10 });
    this.#point(place);
    this.said.textContent = `${day(this.labels[place])}: ${this.lower.name} ${number(this.lower.values[place])}, ${this.upper.name} ${number(this.upper.values[place])}`;
  }
}

/** Steps of an axis that counts things: never halves. */
function whole() {
  const steps = [];
  for (let power = 1; power <= 1e15; power *= 10) steps.push(power, 2 * power, 5 * power);
  return steps;
}
