// A text in Markdown that may grow. Only chunks that changed are rendered again, so that selections are kept, and long texts are
// rendered in slices.

import { h } from "../dom.js";
import { linkDefinitions, splitMarkdown } from "../markdown-chunks.js";
import { enqueue } from "../render-queue.js";
import { renderMarkdown } from "./markdown.js";

export class Prose {
  constructor() {
    this.element = h("div.prose", {});
    this.text = "";
    this.definitions = "";
    /** The chunks on the page: `{source, continues, nodes}`. */
    this.chunks = [];
    this.isQueued = false;
  }

  /** Shows this text in place of the text before. */
  show(text) {
    if (this.text === text) return;
    this.text = text;
    this.wanted = text ? splitMarkdown(text) : [];
    const definitions = linkDefinitions(text);
    if (definitions !== this.definitions) this.#keep(0);
    this.definitions = definitions;
    const isSame = (chunk, index) => chunk.source === this.wanted[index]?.source && chunk.continues === this.wanted[index].continues;
    const changed = this.chunks.findIndex((chunk, index) => !isSame(chunk, index));
    if (changed >= 0) this.#keep(changed);
    if (this.isQueued || this.chunks.length === this.wanted.length) return;
    this.isQueued = true;
    enqueue(() => this.#step());
  }

  /** Removes all chunks from this index on. */
  #keep(count) {
    for (const { nodes } of this.chunks.splice(count)) nodes.forEach((node) => node.remove());
  }

  /** Renders the next chunk. Returns true if there are more. */
  #step() {
    const next = this.wanted[this.chunks.length];
    if (next) this.chunks.push({ ...next, nodes: this.#append(renderMarkdown(next.source, this.definitions), next.continues) });
    this.isQueued = this.chunks.length < this.wanted.length;
    return this.isQueued;
  }

  #append(fragment, continues) {
    const nodes = [];
    const last = this.element.lastElementChild;
    if (continues === "table") {
      const body = last?.querySelector("tbody");
      const rows = fragment.querySelectorAll("tbody > tr");
      if (body && rows.length) {
        nodes.push(...rows);
        body.append(...rows);
        fragment.querySelector(".table-scroller").remove();
      }
    } else if (continues === "list" && last?.matches("ul, ol") && fragment.firstElementChild?.tagName === last.tagName) {
      const list = fragment.firstElementChild;
      nodes.push(...list.children);
      last.append(...list.children);
      list.remove();
    }
    nodes.push(...fragment.childNodes);
    this.element.append(fragment);
    return nodes;
  }
}
