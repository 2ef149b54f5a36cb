// A list that is loaded page by page, and the section around it.

import { getJson } from "../api.js";
import { h, replaceChildren } from "../dom.js";
import { t } from "../i18n.js";
import { loadingIndicator, notice } from "./ui.js";

/** The number of pages without an item that are passed over at once: a page of a search may hold nothing although later pages do. */
const MAX_EMPTY_PAGES = 20;

export class PagedList {
  /**
   * `path` is the API route, `row` renders one item, `empty` is the text of an empty list, `query` returns further parameters, and
   * `before` resolves once the rows can be rendered.
   */
  constructor({ path, row, empty, query = () => ({}), before = async () => {} }) {
    Object.assign(this, { path, row, empty, query, before });
    this.rows = h("ul.rows", {});
    this.footer = h("div.rows-footer", {});
    this.element = h("div", {}, this.rows, this.footer);
    this.loadId = 0;
    this.load();
  }

  async load() {
    this.cursor = null;
    this.loadId += 1;
    const { loadId } = this;
    replaceChildren(this.rows);
    replaceChildren(this.footer, loadingIndicator());
    await this.before();
    if (loadId === this.loadId) await this.loadMore();
  }

  async loadMore() {
    const { loadId } = this;
    try {
      replaceChildren(this.footer, loadingIndicator());
      let page;
      for (let pages = 0; pages <= MAX_EMPTY_PAGES; pages += 1) {
        page = await getJson(this.path, { limit: 30, ...this.query(), cursor: this.cursor });
        if (loadId !== this.loadId) return;
        this.cursor = page.nextCursor;
        if (page.data.length || !this.cursor) break;
      }
      this.rows.append(...page.data.map((item) => this.row(item)));
      this.#showFooter();
    } catch (error) {
      if (loadId === this.loadId) replaceChildren(this.footer, notice("warn", error.message), h("button.button.secondary.small.spaced", { type: "button", onclick: () => this.loadMore() }, t("retry")));
    }
  }

  /** Puts a new item at the top of the list, which the API may not list yet. */
  prepend(item) {
    this.rows.prepend(this.row(item));
    this.#showFooter();
  }

  /** Ends what is being loaded. */
  destroy() {
    this.loadId += 1;
  }

  #showFooter() {
    const isEmpty = this.rows.children.length === 0 && !this.cursor;
    replaceChildren(this.footer, isEmpty ? h("div.card.empty", {}, h("p", {}, this.empty)) : null, this.cursor ? h("button.button.secondary.small", { type: "button", onclick: () => this.loadMore() }, t("list.more")) : null);
  }
}

/** A section with a title, an introduction, controls and a list, as a part of a page. */
export function listSection({ id, title, intro, controls = null, list }) {
  const element = h("section.section", { "aria-labelledby": id },
    h("div.section-header", {}, h("div", {}, h("h2", { id }, title), h("p.subtitle", {}, intro)), controls ? h("div.controls", {}, controls) : null),
    list.element);
  return { element, destroy: () => list.destroy() };
}
