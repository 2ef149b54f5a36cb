// The chat page: the recorded messages of a conversation, the active chat, and the composer.

import { ActiveChat, activeChatIn, removeStoredChat, storedChats, waitUntilRecorded } from "../active-chats.js";
import { conversationPath } from "../address.js";
import { getJson } from "../api.js";
import { Composer } from "../components/composer.js";
import { conversationActions, conversationChanges } from "../components/conversation-list.js";
import { FollowScroll } from "../components/follow-scroll.js";
import { TurnView } from "../components/turn-view.js";
import { announce, loadingIndicator, menu, notice } from "../components/ui.js";
import { h, icon, iconButton, replaceChildren } from "../dom.js";
import { t } from "../i18n.js";
import * as live from "../live.js";
import { replaceAddress } from "../navigation.js";
import { buildMessages, buildTurns, earlyEnd, fillTexts } from "../turns.js";

const PAGE_SIZE = 60;
/** The number of messages in a page when the whole conversation is loaded to be sent. */
const HISTORY_PAGE_SIZE = 100;
/** The maximum number of messages of a conversation that are sent with a question; older ones are left out, with a note. */
const MAX_HISTORY_MESSAGES = 4000;
/** Intervals between attempts to find a conversation that is not on the record yet. */
const MISSING_RETRY_MS = [2000, 4000, 8000, 15_000, 30_000];

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
    /** Chats that ended on this page and are not recorded yet, by id. */
    this.endedChats = new Map();
    /** Recorded chats that ended on this page, by id: the record may not keep their texts. */
    this.seenChats = new Map();
    /** The ids of chats that run and cannot be followed. */
    this.unfollowable = new Set();
    /** True if all messages of the conversation are loaded. */
    this.isWhole = !id;
    this.title = id ? "" : t("chat.new");

    this.thread = h("div.thread", { role: "log", "aria-label": t("chat.thread"), "aria-live": "off" });
    this.header = h("div.chat-header", {});
    this.earlier = h("div.notices.earlier", {});
    this.notices = h("div.notices", {});
    const column = h("div.column", {}, this.header, this.earlier, this.notices, this.thread);
    this.scroller = h("div.scroller", { tabindex: "0", "aria-label": t("chat.thread"), role: "region" }, column);
    this.scrollButton = iconButton("down", t("chat.latest"), () => this.scroll.toEnd({ smooth: true }), { class: "scroll-button", hidden: true });
    this.scroll = new FollowScroll(this.scroller, column, () => { this.scrollButton.hidden = this.scroll.isAtEnd(); });
    /** Notices about the question in the composer, in view wherever the thread is scrolled to. */
    this.sendNotices = h("div.notices.send-notices", {});
    this.composer = new Composer({ conversationId: id, send: (text) => this.send(text), stop: () => this.activeChat?.stop() });
    this.greeting = h("div.greeting", {}, icon("mark"), h("h1", {}, t("chat.greeting")), h("p", {}, t("chat.intro")));
    this.element = h("div.chat", { onkeydown: (event) => event.key === "Escape" && !event.defaultPrevented && this.activeChat?.stop() }, this.scroller, h("div.composer-area", {}, this.greeting, this.scrollButton, this.sendNotices, this.composer.element));
    this.element.classList.toggle("new", !id);

    this.unsubscribers = [
      live.subscribe("chat", (chat) => chat.conversationId === this.id && !this.activeChat && this.#refresh()),
      live.subscribe("reset", () => this.id && !this.activeChat && this.conversation && this.#refresh()),
    ];
    this.onChange = ({ detail }) => {
      if (detail.id !== this.id) return;
      if (this.missingAttempts && !this.conversation && !detail.deleted) this.#loadAgain();
      else this.#applyChange(detail);
    };
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
    this.scroll.destroy();
    clearTimeout(this.missingTimer);
  }

  async #load() {
    try {
      await this.#loadNewest();
    } catch (error) {
      if (this.abortController.signal.aborted) return;
      if (error.status === 404 && (this.activeChat || this.#unrecordedChats().length)) {
        // The conversation is new and not recorded yet: show the chat that is stored in the tab.
        this.isWhole = true;
        this.#render();
        return;
      }
      if (this.activeChat) this.#render();
      else this.thread.replaceChildren();
      const isMissing = error.status === 404;
      const retryButton = h("button.button.secondary.small", { type: "button", onclick: () => this.#loadAgain() }, t("retry"));
      replaceChildren(this.notices, notice("warn", h("p", {}, isMissing ? t("chat.missing") : error.message), retryButton, isMissing ? h("a", { href: "/" }, t("nav.new")) : null));
      this.composer.setEnabled(!isMissing);
      if (isMissing) this.#retryMissing();
    }
  }

  #loadAgain() {
    replaceChildren(this.notices);
    replaceChildren(this.thread, loadingIndicator());
    this.composer.setEnabled(true);
    return this.#load();
  }

  /** Looks again for a conversation that the record does not have, a few times: the recorder may be behind. */
  #retryMissing() {
    this.missingAttempts = (this.missingAttempts ?? 0) + 1;
    const delayMs = MISSING_RETRY_MS[this.missingAttempts - 1];
    clearTimeout(this.missingTimer);
    if (delayMs) this.missingTimer = setTimeout(() => this.conversation || this.#loadAgain(), delayMs);
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
    this.isWhole = !this.cursor;
    this.#applyChange(conversation);
    replaceChildren(this.notices);
    this.#render();
  }

  async #refresh() {
    try {
      await this.#loadNewest();
    } catch { /* The messages shown so far stay; the next event tries again. */ }
  }

  /** Loads the next page of older messages. Concurrent callers share one request. */
  #loadOlder(limit) {
    this.olderRequest ??= this.#fetchOlder(limit).finally(() => { this.olderRequest = null; });
    return this.olderRequest;
  }

  async #fetchOlder(limit) {
    const { signal } = this.abortController;
    const page = await getJson(`/api/conversations/${encodeURIComponent(this.id)}/messages`, { order: "desc", limit, cursor: this.cursor }, { signal });
    this.messages.push(...page.data);
    const known = new Set(this.chats.map((chat) => chat.id));
    this.chats.push(...page.chats.filter((chat) => !known.has(chat.id)));
    this.cursor = page.nextCursor;
    this.isWhole = !this.cursor;
  }

  /** Shows older messages above those that are shown, which keep their place. */
  async #showOlder(button) {
    button.disabled = true;
    try {
      await this.#loadOlder(PAGE_SIZE);
    } catch (error) {
      if (!this.abortController.signal.aborted) replaceChildren(this.notices, notice("warn", error.message));
      button.disabled = false;
      return;
    }
    replaceChildren(this.notices);
    this.scroll.stay();
    const distance = this.scroller.scrollHeight - this.scroller.scrollTop;
    this.#render();
    this.scroller.scrollTop = this.scroller.scrollHeight - distance;
  }

  /**
   * Loads the whole conversation, which is sent with a question. Returns a note about what is left out, or null. Throws if the
   * conversation cannot be loaded.
   */
  async #loadHistory() {
    if (this.isWhole) return null;
    if (!this.conversation) await this.#loadNewest();
    while (this.cursor && this.messages.length < MAX_HISTORY_MESSAGES) await this.#loadOlder(HISTORY_PAGE_SIZE);
    return this.cursor ? t("chat.leftOut", { n: this.messages.length }) : null;
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
    const menuButton = iconButton("more", t("list.actions", { title }), () => menu(menuButton, conversationActions(this.conversation)), { "aria-haspopup": "menu", "aria-expanded": "false" });
    replaceChildren(this.header, h("h1", { title, dir: "auto" }, title), this.conversation.archived ? h("span.badge", {}, t("list.archived")) : null, menuButton);
    if (!this.activeChat) this.composer.selectModel(this.conversation.model);
  }

  /** The chats of this conversation that are stored in the tab and not recorded yet. */
  #unrecordedChats() {
    const ended = new Set(this.chats.filter((chat) => chat.status !== "started").map((chat) => chat.id));
    ended.forEach((id) => {
      removeStoredChat(id);
      if (this.endedChats.has(id)) this.seenChats.set(id, this.endedChats.get(id));
      this.endedChats.delete(id);
    });
    const unrecorded = { ...storedChats(), ...Object.fromEntries(this.endedChats) };
    return Object.values(unrecorded).filter((chat) => chat.conversationId === this.id && !ended.has(chat.chatId) && chat.chatId !== this.activeChat?.chatId);
  }

  /** The turns of recorded chats, of chats stored in the tab, and of the active chat. */
  #turns() {
    // The active chat is shown from the stream, not from the record.
    const isRecorded = (id) => id !== this.activeChat?.chatId;
    const turns = buildTurns(this.messages.filter((message) => isRecorded(message.chatId)), this.chats.filter((chat) => isRecorded(chat.id)));
    const unrecorded = this.#unrecordedChats();
    turns.filter((turn) => !turn.isKept || !turn.answer.isKept).forEach((turn) => fillTexts(turn, this.seenChats.get(turn.answer.chatId)));
    for (const stored of unrecorded) {
      const answer = { chatId: stored.chatId, status: stored.status === "streaming" ? "waiting" : stored.status, text: stored.text, reasoning: stored.reasoning, error: stored.error ? { message: stored.error } : null, finishReason: stored.finishReason ?? null, toolCalls: [], model: stored.model, tokens: null };
      const recorded = turns.find((turn) => turn.answer.chatId === stored.chatId);
      if (recorded) recorded.answer = answer;
      else turns.push({ key: stored.chatId, question: stored.question, role: "user", createdAt: stored.createdAt, answer, previousAnswers: [] });
    }
    turns.sort((a, b) => (a.key < b.key ? -1 : 1));
    const turn = this.#turnOfActiveChat();
    if (turn) {
      const previous = turns.at(-1);
      const isRetry = this.activeChat.isRetry && previous?.question === turn.question;
      if (isRetry) {
        previous.previousAnswers.push(previous.answer);
        previous.answer = turn.answer;
      } else {
        turns.push(turn);
      }
      // The earlier answers of a retried turn do not change while the active chat goes on.
      this.activePreviousAnswers = isRetry ? previous.previousAnswers : [];
      this.activeKey = turns.at(-1).key;
    }
    return turns;
  }

  #turnOfActiveChat() {
    if (!this.activeChat) return null;
    const { question, createdAt, model, chatId, answer } = this.activeChat;
    return { key: "active", question, role: "user", createdAt, answer: { toolCalls: [], model, tokens: null, chatId, ...answer }, previousAnswers: this.activePreviousAnswers ?? [] };
  }

  #render() {
    if (this.abortController.signal.aborted) return;
    const turns = this.#turns();
    const views = turns.map((turn, index) => {
      const view = this.views.get(turn.key) ?? new TurnView();
      this.views.set(turn.key, view);
      const isLast = index === turns.length - 1;
      view.show(turn, { retry: isLast && !this.activeChat && turn.role === "user" && turn.question !== null ? () => this.send(turn.question, { isRetry: true }) : null });
      return view.element;
    });
    if (views.some((element, index) => this.thread.children[index] !== element) || this.thread.children.length !== views.length) replaceChildren(this.thread, views);
    const olderButton = h("button.button.secondary.small", { type: "button", onclick: () => this.#showOlder(olderButton) }, t("chat.older"));
    replaceChildren(this.earlier, this.cursor ? olderButton : null);
    const waiting = turns.filter((turn) => turn.answer.status === "waiting");
    const resumed = this.activeChat ? null : waiting.findLast((turn) => !this.unfollowable.has(turn.answer.chatId));
    if (resumed) this.#resume(resumed);
    waiting.filter((turn) => turn !== resumed).forEach((turn) => this.#awaitRecord(turn.answer.chatId));
  }

  /** Follows the answer of a chat that was begun before a reload, or in another tab. */
  #resume({ question, createdAt, previousAnswers, answer: { chatId, model, text, reasoning } }) {
    const activeChat = new ActiveChat({ conversationId: this.id, chatId, model, question, createdAt, text, reasoning });
    activeChat.isRetry = previousAnswers.length > 0;
    const view = this.views.get(chatId);
    if (view) this.views.set("active", view);
    this.#follow(activeChat);
    this.#render();
  }

  /** Draws the text of the active chat, whose other parts are drawn by `#render`. */
  #renderActive() {
    const turn = this.#turnOfActiveChat();
    const view = this.views.get(this.activeKey);
    if (view && turn) view.show(turn, { retry: null });
    else this.#render();
  }

  /** Waits until the end of a chat is recorded, then shows it. */
  async #awaitRecord(chatId) {
    if (this.awaitedChats.has(chatId)) return;
    this.awaitedChats.add(chatId);
    if (await waitUntilRecorded(chatId, this.abortController.signal)) await this.#refresh();
    this.awaitedChats.delete(chatId);
  }

  /**
   * Sends a question with the whole conversation. `isRetry` replaces the answer of the last turn. `leaveOut` sends only the
   * messages that are loaded.
   */
  async send(text, { isRetry = false, leaveOut = false } = {}) {
    if (this.activeChat || this.isSending) return;
    replaceChildren(this.sendNotices);
    if (!leaveOut) {
      this.isSending = true;
      this.composer.setWaiting(true);
      try {
        const note = await this.#loadHistory();
        if (note) replaceChildren(this.sendNotices, notice("info", note));
      } catch (error) {
        if (!this.abortController.signal.aborted) this.#onHistoryMissing(error, text, isRetry);
        return;
      } finally {
        this.isSending = false;
        this.composer.setWaiting(false);
      }
      if (this.abortController.signal.aborted) return;
    }
    const turns = this.#turns();
    const history = isRetry ? turns.slice(0, -1) : turns;
    const activeChat = new ActiveChat({ conversationId: this.id, model: this.composer.model, question: text, messages: buildMessages(history, text) });
    activeChat.isRetry = isRetry;
    this.element.classList.remove("new");
    this.#follow(activeChat);
    this.#render();
    this.scroll.toEnd({ smooth: true });
  }

  /** Says that the question was not sent, because the earlier messages cannot be loaded. */
  #onHistoryMissing(error, text, isRetry) {
    if (!isRetry) this.composer.restoreText(text);
    const again = (options) => {
      if (!isRetry) this.composer.clearText(text);
      this.send(text, { isRetry, ...options });
    };
    replaceChildren(this.sendNotices, notice("warn", h("p", {}, t("chat.historyMissing"), " ", error.message),
      h("button.button.secondary.small", { type: "button", onclick: () => again({}) }, t("retry")),
      h("button.button.quiet.small", { type: "button", onclick: () => again({ leaveOut: true }) }, t("chat.sendWithout"))));
  }

  #follow(activeChat) {
    this.activeChat = activeChat;
    const { signal } = this.abortController;
    this.composer.setBusy(true);
    announce(t("answer.started"));
    activeChat.addEventListener("started", () => this.#onStarted(activeChat), { signal });
    activeChat.addEventListener("updated", () => this.#renderActive(), { signal });
    activeChat.addEventListener("ended", () => this.#onEnded(activeChat), { signal });
    if (activeChat.chatId) this.composer.accept();
  }

  #onStarted(activeChat) {
    const isNew = this.id !== activeChat.conversationId;
    if (isNew) {
      this.id = activeChat.conversationId;
      replaceAddress(conversationPath(this.id));
    }
    this.composer.accept(this.id);
    this.#renderActive();
  }

  async #onEnded(activeChat) {
    this.activeChat = null;
    this.composer.setBusy(false);
    const { answer, chatId } = activeChat;
    if (answer.status === "waiting") this.unfollowable.add(chatId);
    // The view goes on as the view of the recorded turn, so that nothing is drawn again.
    const view = this.views.get("active");
    this.views.delete("active");
    if (view && chatId) this.views.set(chatId, view);
    const cause = earlyEnd(answer.finishReason);
    if (answer.status !== "waiting") announce(t(answer.stopped ? "answer.stopped" : answer.status !== "complete" ? "answer.failed" : cause ? `answer.earlyEnd.${cause}` : "answer.done"));
    if (!chatId) {
      // The chat was refused and is not recorded: put the question back into the composer.
      replaceChildren(this.sendNotices, notice("bad", answer.error?.message ?? t("answer.failed")));
      if (!activeChat.isRetry) this.composer.restoreText(activeChat.question);
      if (!this.id) this.element.classList.add("new");
      this.#render();
      return;
    }
    this.endedChats.set(chatId, activeChat.toStored());
    this.#render();
    if (answer.status === "waiting") return;
    if (await waitUntilRecorded(chatId, this.abortController.signal)) {
      await this.#refresh();
      conversationChanges.dispatchEvent(new CustomEvent("change", { detail: { refresh: true } }));
    }
  }
}
