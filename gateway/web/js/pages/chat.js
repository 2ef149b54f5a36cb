// The chat page: the recorded messages of a conversation, the active chat, and the composer.

import { ActiveChat, activeChatIn, removeStoredChat, storedChats, waitUntilRecorded } from "../active-chats.js";
import { getJson } from "../api.js";
import { Composer } from "../components/composer.js";
import { archiveConversation, conversationChanges, deleteConversation, renameConversation } from "../components/conversation-list.js";
import { TurnView } from "../components/turn-view.js";
import { announce, loadingIndicator, menu, notice } from "../components/ui.js";
import { h, icon, iconButton, replaceChildren } from "../dom.js";
import { t } from "../i18n.js";
import * as live from "../live.js";
import { replaceAddress } from "../navigation.js";
import { buildMessages, buildTurns } from "../turns.js";

const PAGE_SIZE = 60;

export const page = ({ id }) => new ChatPage(id ?? null);

class ChatPage {
  constructor(id) {
    this.id = id;
    this.conversation = null;
    this.messages = [];
    this.chats = [];
    this.cursor = null;
    this.views = new Map();
    this.abortController = new AbortController();
    this.awaitedChats = new Set();
    this.title = id ? "" : t("chat.new");

    this.thread = h("div.thread", { role: "log", "aria-label": t("chat.thread"), "aria-live": "off" });
    this.header = h("div.chat-header", {});
    this.notices = h("div.notices", {});
    this.scroller = h("div.scroller", { tabindex: "0", "aria-label": t("chat.thread"), role: "region", onscroll: () => this.#updateScrollButton() }, h("div.column", {}, this.header, this.notices, this.thread));
    this.scrollButton = iconButton("down", t("chat.latest"), () => this.#scrollToEnd(true), { class: "scroll-button", hidden: true });
    this.composer = new Composer({ send: (text) => this.send(text), stop: () => this.activeChat?.stop() });
    this.greeting = h("div.greeting", {}, icon("mark"), h("h1", {}, t("chat.greeting")), h("p", {}, t("chat.intro")));
    this.element = h("div.chat", { onkeydown: (event) => event.key === "Escape" && !event.defaultPrevented && this.activeChat?.stop() }, this.scroller, h("div.composer-area", {}, this.greeting, this.scrollButton, this.composer.element));
    this.element.classList.toggle("new", !id);

    this.unsubscribers = [
      live.subscribe("chat", (chat) => chat.conversationId === this.id && !this.activeChat && this.#refresh()),
      live.subscribe("reset", () => this.id && !this.activeChat && this.conversation && this.#refresh()),
    ];
    this.onChange = ({ detail }) => detail.id === this.id && this.#applyChange(detail);
    conversationChanges.addEventListener("change", this.onChange);
  }

  /** Called once the page is in the document. */
  mounted() {
    this.composer.focus();
    if (!this.id) return;
    replaceChildren(this.thread, loadingIndicator());
    const activeChat = activeChatIn(this.id);
    if (activeChat) this.#follow(activeChat);
    this.#load();
  }

  destroy() {
    this.abortController.abort();
    this.unsubscribers.forEach((unsubscribe) => unsubscribe());
    conversationChanges.removeEventListener("change", this.onChange);
    this.composer.destroy();
  }

  async #load() {
    try {
      await this.#loadNewest();
    } catch (error) {
      if (this.abortController.signal.aborted) return;
      if (error.status === 404 && (this.activeChat || this.#unrecordedChats().length)) {
        // The conversation is new and not recorded yet: show the chat that is stored in the tab.
        this.#render();
        return;
      }
      if (this.activeChat) this.#render();
      else this.thread.replaceChildren();
      const text = error.status === 404 ? t("chat.missing") : error.message;
      replaceChildren(this.notices, notice("warn", h("p", {}, text), error.status === 404 ? h("a", { href: "/" }, t("nav.new")) : h("button.button.secondary.small", { type: "button", onclick: () => { replaceChildren(this.notices); replaceChildren(this.thread, loadingIndicator()); this.#load(); } }, t("retry"))));
      this.composer.setEnabled(error.status !== 404);
    }
  }

  /** Loads the conversation and the newest page of the recorded messages. */
  async #loadNewest() {
    const path = `/api/conversations/${encodeURIComponent(this.id)}`;
    const options = { signal: this.abortController.signal };
    const [conversation, page] = await Promise.all([getJson(path, null, options), getJson(`${path}/messages`, { order: "desc", limit: PAGE_SIZE }, options)]);
    const newestIds = new Set(page.chats.map((chat) => chat.id));
    // Older messages that were loaded before are kept.
    const oldest = page.data.length ? page.data.map((message) => message.chatId).sort()[0] : "";
    const isOlder = (row, id) => id < oldest && !newestIds.has(id);
    this.messages = [...this.messages.filter((message) => isOlder(message, message.chatId)), ...page.data];
    this.chats = [...this.chats.filter((chat) => isOlder(chat, chat.id)), ...page.chats];
    if (!this.conversation) this.cursor = page.nextCursor;
    this.#applyChange(conversation);
    replaceChildren(this.notices);
    this.#render();
  }

  async #refresh() {
    try {
      await this.#loadNewest();
    } catch { /* The messages shown so far stay; the next event tries again. */ }
  }

  async #loadOlder() {
    const page = await getJson(`/api/conversations/${encodeURIComponent(this.id)}/messages`, { order: "desc", limit: PAGE_SIZE, cursor: this.cursor });
    this.messages.push(...page.data);
    this.chats.push(...page.chats.filter((chat) => !this.chats.some((known) => known.id === chat.id)));
    this.cursor = page.nextCursor;
    const height = this.scroller.scrollHeight;
    this.#render();
    this.scroller.scrollTop += this.scroller.scrollHeight - height;
  }

  #applyChange(conversation) {
    if (conversation.deleted) {
      this.abortController.abort();
      this.thread.replaceChildren();
      replaceChildren(this.notices, notice("info", t("chat.deleted")));
      this.composer.setEnabled(false);
      return;
    }
    this.conversation = { ...this.conversation, ...conversation };
    const title = this.conversation.title || t("list.untitled");
    this.onTitle?.(title);
    const menuButton = iconButton("more", t("list.actions", { title }), () => menu(menuButton, [
      { label: t("list.rename"), icon: "rename", onSelect: () => renameConversation(this.conversation) },
      { label: t("list.archive"), icon: "archive", onSelect: () => archiveConversation(this.conversation) },
      { label: t("list.delete"), icon: "delete", danger: true, onSelect: () => deleteConversation(this.conversation) },
    ]), { "aria-haspopup": "menu", "aria-expanded": "false" });
    replaceChildren(this.header, h("h1", { title }, title), menuButton);
    if (!this.activeChat) this.composer.selectModel(this.conversation.model);
  }

  /** The chats of this conversation that are stored in the tab and not recorded yet. */
  #unrecordedChats() {
    const ended = new Set(this.chats.filter((chat) => chat.status !== "started").map((chat) => chat.id));
    ended.forEach(removeStoredChat);
    return Object.values(storedChats()).filter((chat) => chat.conversationId === this.id && !ended.has(chat.chatId) && chat.chatId !== this.activeChat?.chatId);
  }

  /** The turns of recorded chats, of chats stored in the tab, and of the active chat. */
  #turns() {
    // The active chat is shown from the stream, not from the record.
    const isRecorded = (id) => id !== this.activeChat?.chatId;
    const turns = buildTurns(this.messages.filter((message) => isRecorded(message.chatId)), this.chats.filter((chat) => isRecorded(chat.id)));
    for (const stored of this.#unrecordedChats()) {
      const answer = { chatId: stored.chatId, status: stored.status === "streaming" ? "waiting" : stored.status, text: stored.text, reasoning: stored.reasoning, error: stored.error ? { message: stored.error } : null, toolCalls: [], model: stored.model, tokens: null };
      const recorded = turns.find((turn) => turn.answer.chatId === stored.chatId);
      if (recorded) recorded.answer = answer;
      else turns.push({ key: stored.chatId, question: stored.question, role: "user", createdAt: stored.createdAt, answer, previousAnswers: [] });
    }
    turns.sort((a, b) => (a.key < b.key ? -1 : 1));
    if (this.activeChat) {
      const turn = { key: "active", question: this.activeChat.question, role: "user", createdAt: this.activeChat.createdAt, answer: { toolCalls: [], model: this.activeChat.model, tokens: null, chatId: this.activeChat.chatId, ...this.activeChat.answer }, previousAnswers: [] };
      const previous = turns.at(-1);
      if (this.activeChat.isRetry && previous?.question === turn.question) {
        previous.previousAnswers.push(previous.answer);
        previous.answer = turn.answer;
      } else {
        turns.push(turn);
      }
    }
    return turns;
  }

  #render() {
    if (this.abortController.signal.aborted) return;
    const atEnd = this.#isAtEnd();
    const turns = this.#turns();
    const views = turns.map((turn, index) => {
      const view = this.views.get(turn.key) ?? new TurnView();
      this.views.set(turn.key, view);
      const isLast = index === turns.length - 1;
      view.show(turn, { retry: isLast && !this.activeChat && turn.role === "user" ? () => this.send(turn.question, { isRetry: true }) : null });
      return view.element;
    });
    if (views.some((element, index) => this.thread.children[index] !== element) || this.thread.children.length !== views.length) replaceChildren(this.thread, views);
    if (this.cursor) replaceChildren(this.notices, h("button.button.secondary.small", { type: "button", onclick: () => this.#loadOlder() }, t("chat.older")));
    turns.filter((turn) => turn.answer.status === "waiting").forEach((turn) => this.#awaitRecord(turn.answer.chatId));
    if (atEnd) this.#scrollToEnd(false);
    this.#updateScrollButton();
  }

  /** Waits until the end of a chat is recorded, then shows it. */
  async #awaitRecord(chatId) {
    if (this.awaitedChats.has(chatId)) return;
    this.awaitedChats.add(chatId);
    if (await waitUntilRecorded(chatId, this.abortController.signal)) await this.#refresh();
    this.awaitedChats.delete(chatId);
  }

  /** Sends a question. `isRetry` replaces the answer of the last turn. */
  async send(text, { isRetry = false } = {}) {
    if (this.activeChat) return;
    const turns = this.#turns();
    const history = isRetry ? turns.slice(0, -1) : turns;
    const activeChat = new ActiveChat({ conversationId: this.id, model: this.composer.model, question: text, messages: buildMessages(history, text) });
    activeChat.isRetry = isRetry;
    this.element.classList.remove("new");
    this.#follow(activeChat);
    this.#render();
    this.#scrollToEnd(true);
  }

  #follow(activeChat) {
    this.activeChat = activeChat;
    const { signal } = this.abortController;
    this.composer.setBusy(true);
    announce(t("answer.started"));
    activeChat.addEventListener("started", () => this.#onStarted(activeChat), { signal });
    activeChat.addEventListener("updated", () => this.#render(), { signal });
    activeChat.addEventListener("ended", () => this.#onEnded(activeChat), { signal });
    if (activeChat.chatId) this.composer.clearDraft();
  }

  #onStarted(activeChat) {
    this.composer.clearDraft();
    if (this.id === activeChat.conversationId) return;
    this.id = activeChat.conversationId;
    replaceAddress(`/c/${encodeURIComponent(this.id)}`);
  }

  async #onEnded(activeChat) {
    this.activeChat = null;
    this.views.delete("active");
    this.composer.setBusy(false);
    const { answer, chatId } = activeChat;
    announce(t(answer.status === "complete" ? "answer.done" : answer.stopped ? "answer.stopped" : "answer.failed"));
    if (!chatId) {
      // The chat was refused and is not recorded: put the question back into the composer.
      replaceChildren(this.notices, notice("bad", answer.error?.message ?? t("answer.failed")));
      this.composer.restoreText(activeChat.question);
      if (!this.id) this.element.classList.add("new");
      this.#render();
      this.notices.scrollIntoView({ block: "nearest" });
      return;
    }
    replaceChildren(this.notices);
    this.#render();
    if (await waitUntilRecorded(chatId, this.abortController.signal)) {
      await this.#refresh();
      conversationChanges.dispatchEvent(new CustomEvent("change", { detail: { refresh: true } }));
    }
  }

  #isAtEnd() {
    return this.scroller.scrollHeight - this.scroller.scrollTop - this.scroller.clientHeight < 80;
  }

  #scrollToEnd(smooth) {
    this.scroller.scrollTo({ top: this.scroller.scrollHeight, behavior: smooth ? "smooth" : "instant" });
  }

  #updateScrollButton() {
    this.scrollButton.hidden = this.#isAtEnd();
  }
}
