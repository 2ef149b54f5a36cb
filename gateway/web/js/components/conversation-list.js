// The conversations at the side: newest first, a page at a time, searched, renamed, deleted.

import { get, json } from "../api.js";
import { debounce, fill, h, icon, iconButton } from "../dom.js";
import { month, t } from "../i18n.js";
import * as live from "../live.js";
import { go } from "../navigation.js";
import { announce, ask, field, loading, menu, notice, toast } from "./ui.js";

const PAGE = 40;
/** How many pages one search looks through before it asks whether to go on. */
const SEARCH_PAGES = 20;

/** Tells whoever shows a conversation that it has changed: `{id, title}` or `{id, deleted}`. */
export const changes = new EventTarget();

const changed = (detail) => changes.dispatchEvent(new CustomEvent("change", { detail }));

export class ConversationList {
  constructor() {
    this.rows = new Map();
    this.cursor = null;
    this.turn = 0;
    this.search = h("input.input", { type: "search", placeholder: t("list.search"), "aria-label": t("list.search"), "aria-keyshortcuts": "Control+K", maxlength: 200, oninput: debounce(250, () => this.load()) });
    this.place = h("div.list-body", {});
    this.sentinel = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this.more(), { rootMargin: "200px" });
    this.element = h("div.list", {}, h("div.search", {}, icon("search"), this.search), this.place);
    this.stops = [
      live.on("conversation", (conversation) => this.#update(conversation)),
      live.on("reset", () => this.#refresh()),
    ];
    this.onChange = ({ detail }) => detail.refresh && this.#refresh();
    changes.addEventListener("change", this.onChange);
    this.load();
  }

  leave() {
    this.turn += 1;
    this.stops.forEach((stop) => stop());
    this.sentinel.disconnect();
    changes.removeEventListener("change", this.onChange);
  }

  focusSearch() {
    this.search.focus();
    this.search.select();
  }

  get query() {
    return this.search.value.trim();
  }

  /** From the beginning. */
  async load() {
    const turn = ++this.turn;
    this.rows.clear();
    this.cursor = null;
    fill(this.place, loading());
    try {
      await this.#fetch(turn);
    } catch (error) {
      if (turn === this.turn) this.#failed(error);
    }
  }

  /** The next page. */
  async more() {
    if (!this.cursor || this.busy) return;
    this.busy = true;
    const turn = this.turn;
    try {
      await this.#fetch(turn);
    } catch (error) {
      if (turn === this.turn) toast(error.message);
    }
    this.busy = false;
  }

  async #fetch(turn) {
    const before = this.rows.size;
    for (let pages = 0; pages < SEARCH_PAGES; pages += 1) {
      const page = await get("/api/conversations", { limit: PAGE, cursor: this.cursor, q: this.query });
      if (turn !== this.turn) return;
      for (const conversation of page.data) this.rows.set(conversation.id, conversation);
      this.cursor = page.nextCursor;
      if (!this.cursor || this.rows.size > before) break;
    }
    this.#render();
    if (this.query) announce(t("list.found", { n: this.rows.size }));
  }

  /** The first page again, without a flicker. */
  async #refresh() {
    if (this.query) return;
    const turn = this.turn;
    try {
      const page = await get("/api/conversations", { limit: PAGE });
      if (turn !== this.turn) return;
      for (const conversation of page.data) this.rows.set(conversation.id, conversation);
      if (this.rows.size <= page.data.length) this.cursor = page.nextCursor;
      this.#render();
    } catch { /* What is shown stays. */ }
  }

  #update(conversation) {
    if (conversation.deleted || conversation.archived) {
      this.rows.delete(conversation.id);
      changed({ id: conversation.id, deleted: conversation.deleted });
    } else {
      // What a search has found is not mixed with what it has not.
      if (!this.query || this.rows.has(conversation.id)) this.rows.set(conversation.id, conversation);
      changed(conversation);
    }
    this.#render();
  }

  #failed(error) {
    fill(this.place, notice("warn", error.message), h("button.button.secondary.small", { type: "button", onclick: () => this.load() }, t("retry")));
  }

  #render() {
    const focused = document.activeElement?.closest?.("[data-conversation]")?.dataset.conversation;
    const sorted = [...this.rows.values()].sort((a, b) => (a.lastMessageAt < b.lastMessageAt ? 1 : -1));
    const groups = new Map();
    for (const conversation of sorted) {
      const name = groupOf(conversation.lastMessageAt);
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(this.#row(conversation));
    }
    this.sentinel.disconnect();
    const more = this.cursor ? h("button.button.quiet.small.wide", { type: "button", onclick: () => this.more() }, t("list.more")) : null;
    const empty = sorted.length ? null : h("p.list-empty", {}, t(this.query ? "list.nothing" : "list.empty"));
    fill(this.place, [...groups].map(([name, rows]) => h("section", {}, h("h2", {}, name), h("ul", {}, rows))), empty, more);
    if (more) this.sentinel.observe(more);
    if (focused) this.place.querySelector(`[data-conversation="${CSS.escape(focused)}"] a`)?.focus();
    this.located();
  }

  #row(conversation) {
    const title = conversation.title || t("list.untitled");
    const button = iconButton("more", t("list.actions", { title }), () => this.#menu(button, conversation), { small: true, "aria-haspopup": "menu", "aria-expanded": "false" });
    return h("li", { "data-conversation": conversation.id }, h("a", { href: `/c/${encodeURIComponent(conversation.id)}`, title }, title), button);
  }

  #menu(button, conversation) {
    menu(button, [
      { label: t("list.rename"), icon: "rename", run: () => rename(conversation) },
      { label: t("list.archive"), icon: "archive", run: () => archive(conversation) },
      { label: t("list.delete"), icon: "delete", danger: true, run: () => remove(conversation) },
    ]);
  }

  /** Marks the conversation that is shown. */
  located() {
    for (const link of this.place.querySelectorAll("a")) {
      if (link.pathname === location.pathname) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }
}

const path = (conversation) => `/api/conversations/${encodeURIComponent(conversation.id)}`;

/** Asks for a new title. */
export async function rename(conversation) {
  let renamed = null;
  await ask({
    title: t("rename.title"),
    fields: [field("title", t("rename.label"), { required: true, maxlength: 80, value: conversation.title ?? "" })],
    action: t("save"),
    submit: async (data) => {
      const title = data.get("title").trim();
      if (!title) throw new Error(t("rename.empty"));
      const answer = await json("PATCH", path(conversation), { body: { title } });
      renamed = { ...conversation, ...(answer.pending ? {} : answer), title };
    },
  });
  if (!renamed) return;
  announce(t("rename.done"));
  local(renamed);
}

/** Takes it out of the list; it can still be found by those who ask for archived ones. */
export async function archive(conversation) {
  try {
    await json("PATCH", path(conversation), { body: { archived: true } });
    local({ ...conversation, archived: true });
    toast(t("archive.done"));
  } catch (error) {
    toast(error.message);
  }
}

/** Asks whether to delete it, and does. */
export async function remove(conversation) {
  const sure = await ask({
    title: t("delete.title"),
    words: t("delete.words", { title: conversation.title || t("list.untitled") }),
    action: t("delete.do"),
    kind: "danger",
    submit: () => json("DELETE", path(conversation)),
  });
  if (!sure) return;
  local({ id: conversation.id, deleted: true });
  toast(t("delete.done"));
  if (location.pathname === `/c/${encodeURIComponent(conversation.id)}`) go("/");
}

/** What this page did is shown at once; the live event comes after. */
function local(conversation) {
  live.tell("conversation", conversation);
}

function groupOf(at) {
  const today = new Date();
  today.setHours(0, 0, 0, 0);
  const days = Math.ceil((today - new Date(at)) / 86_400_000);
  if (days <= 0) return t("list.today");
  if (days <= 1) return t("list.yesterday");
  if (days <= 7) return t("list.week");
  return month(at);
}
