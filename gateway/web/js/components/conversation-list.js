// The conversation list in the sidebar: newest first, in pages, with search and the archive; and the actions rename, archive,
// unarchive and delete.

import { conversationPath, currentPath, pathOfLink } from "../address.js";
import { getJson, requestJson } from "../api.js";
import { debounce, h, icon, iconButton, replaceChildren } from "../dom.js";
import { formatMonth, t } from "../i18n.js";
import * as live from "../live.js";
import { navigate } from "../navigation.js";
import { announce, field, loadingIndicator, menu, notice, openDialog, toast } from "./ui.js";

const PAGE_SIZE = 40;
/** The maximum number of pages that one search reads before the user has to ask for more. */
const MAX_SEARCH_PAGES = 20;

/** Dispatches `change` when a conversation has changed; the detail is the conversation, or `{id, deleted}`. */
export const conversationChanges = new EventTarget();

const publishChange = (detail) => conversationChanges.dispatchEvent(new CustomEvent("change", { detail }));

export class ConversationList {
  constructor() {
    this.rows = new Map();
    this.cursor = null;
    this.loadId = 0;
    this.search = h("input.input", { type: "search", placeholder: t("list.search"), "aria-label": t("list.search"), "aria-keyshortcuts": "Control+K", maxlength: 200, oninput: debounce(250, () => this.load()) });
    this.showsArchive = false;
    this.archiveButton = h("button.button.quiet.small.wide.archive-switch", { type: "button", onclick: () => this.#showArchive(!this.showsArchive) });
    this.body = h("div.list-body", {});
    this.visibility = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this.loadMore(), { rootMargin: "200px" });
    this.element = h("div.list", {}, h("div.search", {}, icon("search"), this.search), this.body, this.archiveButton);
    this.unsubscribers = [
      live.subscribe("conversation", (conversation) => this.#update(conversation)),
      live.subscribe("reset", () => this.#refresh()),
    ];
    this.onChange = ({ detail }) => detail.refresh && this.#refresh();
    conversationChanges.addEventListener("change", this.onChange);
    this.#showArchive(false);
  }

  destroy() {
    this.loadId += 1;
    this.unsubscribers.forEach((unsubscribe) => unsubscribe());
    this.visibility.disconnect();
    conversationChanges.removeEventListener("change", this.onChange);
  }

  focusSearch() {
    this.search.focus();
    this.search.select();
  }

  get query() {
    return this.search.value.trim();
  }

  /** Shows the archived conversations, or all others. */
  #showArchive(archive) {
    this.showsArchive = archive;
    replaceChildren(this.archiveButton, icon(archive ? "left" : "archive"), t(archive ? "list.leaveArchive" : "list.showArchive"));
    this.load();
  }

  /** Query parameters of the list. A search looks in the archive as well. */
  #parameters() {
    const { query } = this;
    return { limit: PAGE_SIZE, q: query, archived: query ? "all" : String(this.showsArchive) };
  }

  /** Loads the first page, for the current search. */
  async load() {
    const loadId = ++this.loadId;
    this.rows.clear();
    this.cursor = null;
    replaceChildren(this.body, loadingIndicator());
    try {
      await this.#fetch(loadId);
    } catch (error) {
      if (loadId === this.loadId) this.#showError(error);
    }
  }

  /** Loads the next page. */
  async loadMore() {
    if (!this.cursor || this.isLoadingMore) return;
    this.isLoadingMore = true;
    const loadId = this.loadId;
    try {
      await this.#fetch(loadId);
    } catch (error) {
      if (loadId === this.loadId) toast(error.message);
    }
    this.isLoadingMore = false;
  }

  async #fetch(loadId) {
    const sizeBefore = this.rows.size;
    for (let pages = 0; pages < MAX_SEARCH_PAGES; pages += 1) {
      const page = await getJson("/api/conversations", { ...this.#parameters(), cursor: this.cursor });
      if (loadId !== this.loadId) return;
      for (const conversation of page.data) this.rows.set(conversation.id, conversation);
      this.cursor = page.nextCursor;
      if (!this.cursor || this.rows.size > sizeBefore) break;
    }
    this.#render();
    if (this.query) announce(t("list.found", { n: this.rows.size }));
  }

  /** Loads the first page again and merges the rows, without a loading indicator. */
  async #refresh() {
    if (this.query) return;
    const loadId = this.loadId;
    try {
      const page = await getJson("/api/conversations", this.#parameters());
      if (loadId !== this.loadId) return;
      for (const conversation of page.data) this.rows.set(conversation.id, conversation);
      if (this.rows.size <= page.data.length) this.cursor = page.nextCursor;
      this.#render();
    } catch { /* The rows shown so far stay. */ }
  }

  #update(conversation) {
    // The results of a search are not mixed with other conversations.
    const isShown = this.query ? this.rows.has(conversation.id) : Boolean(conversation.archived) === this.showsArchive;
    if (isShown && !conversation.deleted) this.rows.set(conversation.id, conversation);
    else this.rows.delete(conversation.id);
    publishChange(conversation);
    this.#render();
  }

  #showError(error) {
    replaceChildren(this.body, notice("warn", error.message), h("button.button.secondary.small", { type: "button", onclick: () => this.load() }, t("retry")));
  }

  #render() {
    const focused = document.activeElement?.closest?.("[data-conversation]")?.dataset.conversation;
    const sorted = [...this.rows.values()].sort((a, b) => (a.lastMessageAt < b.lastMessageAt ? 1 : -1));
    const groups = new Map();
    for (const conversation of sorted) {
      const name = dateGroup(conversation.lastMessageAt);
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(this.#row(conversation));
    }
    this.visibility.disconnect();
    const moreButton = this.cursor ? h("button.button.quiet.small.wide", { type: "button", onclick: () => this.loadMore() }, t("list.more")) : null;
    const empty = sorted.length ? null : h("p.list-empty", {}, t(this.query ? "list.noMatches" : this.showsArchive ? "list.archiveEmpty" : "list.empty"));
    replaceChildren(this.body, [...groups].map(([name, rows]) => h("section", {}, h("h2", {}, name), h("ul", {}, rows))), empty, moreButton);
    if (moreButton) this.visibility.observe(moreButton);
    if (focused) this.body.querySelector(`[data-conversation="${CSS.escape(focused)}"] a`)?.focus();
    this.markCurrent();
  }

  #row(conversation) {
    const title = conversation.title || t("list.untitled");
    const button = iconButton("more", t("list.actions", { title }), () => this.#openMenu(button, conversation), { small: true, "aria-haspopup": "menu", "aria-expanded": "false" });
    const badge = conversation.archived && this.query ? h("span.badge", {}, t("list.archived")) : null;
    return h("li", { "data-conversation": conversation.id }, h("a", { href: conversationPath(conversation.id), title }, h("span.title", { dir: "auto" }, title), badge), button);
  }

  #openMenu(button, conversation) {
    menu(button, conversationActions(conversation));
  }

  /** Marks the conversation of the current address. */
  markCurrent() {
    for (const link of this.body.querySelectorAll("a")) {
      if (pathOfLink(link) === currentPath()) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }
}

const conversationUrl = (conversation) => `/api/conversations/${encodeURIComponent(conversation.id)}`;

/** Asks for a new title and renames the conversation. */
export const conversationActions = (conversation) => [
  { label: t("list.rename"), icon: "rename", onSelect: () => renameConversation(conversation) },
  conversation.archived
    ? { label: t("list.unarchive"), icon: "archive", onSelect: () => unarchiveConversation(conversation) }
    : { label: t("list.archive"), icon: "archive", onSelect: () => archiveConversation(conversation) },
  { label: t("list.delete"), icon: "delete", danger: true, onSelect: () => deleteConversation(conversation) },
];

async function renameConversation(conversation) {
  let renamed = null;
  await openDialog({
    title: t("rename.title"),
    fields: [field("title", t("rename.label"), { required: true, maxlength: 80, value: conversation.title ?? "" })],
    submitLabel: t("save"),
    submit: async (data) => {
      const title = data.get("title").trim();
      if (!title) throw new Error(t("rename.empty"));
      const answer = await requestJson("PATCH", conversationUrl(conversation), { body: { title } });
      renamed = { ...conversation, ...(answer.pending ? {} : answer), title };
    },
  });
  if (!renamed) return;
  announce(t("rename.done"));
  publishLocally(renamed);
}

/** Moves the conversation from the list to the archive. */
const archiveConversation = (conversation) => setArchived(conversation, true);

/** Moves the conversation from the archive back to the list. */
const unarchiveConversation = (conversation) => setArchived(conversation, false);

async function setArchived(conversation, archived) {
  try {
    await requestJson("PATCH", conversationUrl(conversation), { body: { archived } });
    publishLocally({ ...conversation, archived });
    toast(t(archived ? "archive.done" : "unarchive.done"));
  } catch (error) {
    toast(error.message);
  }
}

/** Asks for confirmation and deletes the conversation. */
async function deleteConversation(conversation) {
  const confirmed = await openDialog({
    title: t("delete.title"),
    text: t("delete.text", { title: conversation.title || t("list.untitled") }),
    submitLabel: t("delete.confirm"),
    kind: "danger",
    submit: () => requestJson("DELETE", conversationUrl(conversation)),
  });
  if (!confirmed) return;
  publishLocally({ id: conversation.id, deleted: true });
  toast(t("delete.done"));
  if (currentPath() === conversationPath(conversation.id)) navigate("/");
}

/** Shows a change made by this page at once, before the live event arrives. */
function publishLocally(conversation) {
  live.publish("conversation", conversation);
}

function dateGroup(timestamp) {
  const today = new Date();
  today.setHours(0, 0, 0, 0);
  const days = Math.ceil((today - new Date(timestamp)) / 86_400_000);
  if (days <= 0) return t("list.today");
  if (days <= 1) return t("list.yesterday");
  if (days <= 7) return t("list.week");
  return formatMonth(timestamp);
}
