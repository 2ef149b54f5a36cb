// The filters above a list. What the reader chooses is kept in the address.

import { debounce, h, replaceChildren } from "../dom.js";
import { t } from "../i18n.js";
import { readQuery, writeQuery } from "../query.js";
import { field } from "./ui.js";

/** The width from which on the filters are open at first. */
const wideScreen = matchMedia("(min-width: 62rem)");

export class Filters {
  /**
   * `fields` are the filters: `{name, label, choices}` for one of some values, of which `choices` are pairs of value and label; `{name, label,
   * suggestions}` for a text, with pairs of value and name to choose from; and `{name, label, isTime}` for a time. The function `toId` of a text, if there is one, makes
   * the parameter from the text. `onchange` is called after each change.
   */
  constructor({ fields, onchange }) {
    const address = readQuery();
    this.onchange = onchange;
    this.controls = new Map(fields.map((of) => [of.name, { of, control: control(of, address[of.name] ?? "") }]));
    this.summary = h("summary", {});
    this.clearButton = h("button.button.secondary.small", { type: "button", onclick: () => this.#clear() }, t("filters.clear"));
    const changed = debounce(300, () => this.#changed());
    this.form = h("form.filters-form", { onsubmit: (event) => event.preventDefault(), oninput: changed },
      [...this.controls.values()].map(({ of, control }) => [field(of.name, of.label, { input: control }), suggestions(of, control)]), h("div.filters-end", {}, this.clearButton));
    this.element = h("details.filters", { open: wideScreen.matches || this.#chosen().length > 0 }, this.summary, this.form);
    this.#showNumber();
  }

  /** The parameters of the list. */
  query() {
    return Object.fromEntries(this.#chosen().map(({ of, control }) => {
      const text = control.value.trim();
      if (of.isTime) return [of.name, new Date(text).toISOString()];
      return [of.name, of.toId ? of.toId(text) : text];
    }));
  }

  /** Takes over the names that have been loaded by now. */
  suggest(name, pairs) {
    const id = this.controls.get(name)?.control.getAttribute("list");
    const list = id && this.form.querySelector(`#${id}`);
    if (list) replaceChildren(list, options(pairs));
  }

  #chosen() {
    return [...this.controls.values()].filter(({ of, control }) => control.value.trim() !== "" && !(of.isTime && Number.isNaN(Date.parse(control.value))));
  }

  #showNumber() {
    const n = this.#chosen().length;
    replaceChildren(this.summary, n ? t("filters.chosen", { n }) : t("filters.title"));
    this.clearButton.hidden = n === 0;
  }

  #changed() {
    this.#showNumber();
    writeQuery(Object.fromEntries(this.#chosen().map(({ of, control }) => [of.name, control.value.trim()])));
    this.onchange();
  }

  #clear() {
    for (const { control } of this.controls.values()) control.value = "";
    this.#changed();
    this.summary.focus();
  }
}

let nextList = 0;

function control(of, value) {
  if (of.choices) {
    const select = h("select.input", { name: of.name }, h("option", { value: "" }, t("filters.all")), of.choices.map(([choice, label]) => h("option", { value: choice }, label)));
    select.value = of.choices.some(([choice]) => choice === value) ? value : "";
    return select;
  }
  if (of.isTime) return h("input.input", { type: "datetime-local", name: of.name, value });
  return h("input.input", { type: "text", name: of.name, value, maxlength: 256, autocomplete: "off", spellcheck: "false", autocapitalize: "off", list: of.suggestions ? `filter-list-${++nextList}` : null });
}

const options = (pairs) => pairs.map(([value, name]) => h("option", { value: name || value }));

const suggestions = (of, control) => (of.suggestions ? h("datalist", { id: control.getAttribute("list") }, options(of.suggestions)) : null);

/** Makes a function from the name of a thing to its id; other text is taken for an id. `pairs` returns pairs of id and name. */
export const idOf = (pairs) => (text) => pairs().find(([id, name]) => id === text || name === text)?.[0] ?? text;
