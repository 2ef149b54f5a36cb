// A conversation: what is on the record, the answer under way, and the place to ask.

import { ApiError, get } from "../api.js";
import { Composer } from "../components/composer.js";
import { archive, changes, remove, rename } from "../components/conversation-list.js";
import { fill, h, icon, iconButton } from "../dom.js";
import { t } from "../i18n.js";
import * as live from "../live.js";
import { rename as relocate } from "../navigation.js";
import { Run, drop, kept, recorded, runIn } from "../runs.js";
import { TurnView } from "../components/turn-view.js";
import { toMessages, turnsOf } from "../turns.js";
import { announce, loading, menu, notice } from "../components/ui.js";

const PAGE = 60;

export const page = ({ id }) => new Chat(id ?? null);

class Chat {
  constructor(id) {
    this.id = id;
    this.conversation = null;
    this.messages = [];
    this.chats = [];
    this.cursor = null;
    this.views = new Map();
    this.gone = new AbortController();
    this.waiting = new Set();
    this.title = id ? "" : t("chat.new");

    this.thread = h("div.thread", { role: "log", "aria-label": t("chat.thread"), "aria-live": "off" });
    this.head = h("div.chat-head", {});
    this.before = h("div.before", {});
    this.scroller = h("div.scroller", { tabindex: "0", "aria-label": t("chat.thread"), role: "region", onscroll: () => this.#scrolled() }, h("div.column", {}, this.head, this.before, this.thread));
    this.jump = iconButton("down", t("chat.latest"), () => this.#toEnd(true), { class: "jump", hidden: true });
    this.composer = new Composer({ send: (text) => this.send(text), stop: () => this.run?.stop() });
    this.greeting = h("div.greeting", {}, icon("mark"), h("h1", {}, t("chat.greeting")), h("p", {}, t("chat.lead")));
    this.element = h("div.chat", { onkeydown: (event) => event.key === "Escape" && !event.defaultPrevented && this.run?.stop() }, this.scroller, h("div.ask", {}, this.greeting, this.jump, this.composer.element));
    this.element.classList.toggle("new", !id);

    this.stops = [
      live.on("chat", (chat) => chat.conversationId === this.id && !this.run && this.#reread()),
      live.on("reset", () => this.id && !this.run && this.conversation && this.#reread()),
    ];
    this.onChange = ({ detail }) => detail.id === this.id && this.#changed(detail);
    changes.addEventListener("change", this.onChange);
  }

  /** The page is in the document. */
  shown() {
    this.composer.focus();
    if (!this.id) return;
    fill(this.thread, loading());
    const run = runIn(this.id);
    if (run) this.#follow(run);
    this.#load();
  }

  leave() {
    this.gone.abort();
    this.stops.forEach((stop) => stop());
    changes.removeEventListener("change", this.onChange);
    this.composer.leave();
  }

  async #load() {
    try {
      await this.#read();
    } catch (error) {
      if (this.gone.signal.aborted) return;
      if (error.status === 404 && (this.run || this.#kept().length)) {
        // Begun a moment ago: the record is not as far yet, the tab is.
        this.#show();
        return;
      }
      if (this.run) this.#show();
      else this.thread.replaceChildren();
      const words = error.status === 404 ? t("chat.missing") : error.message;
      fill(this.before, notice("warn", h("p", {}, words), error.status === 404 ? h("a", { href: "/" }, t("nav.new")) : h("button.button.secondary.small", { type: "button", onclick: () => { fill(this.before); fill(this.thread, loading()); this.#load(); } }, t("retry"))));
      this.composer.setEnabled(error.status !== 404);
    }
  }

  /** The newest page of the record. */
  async #read() {
    const path = `/api/conversations/${encodeURIComponent(this.id)}`;
    const options = { signal: this.gone.signal };
    const [conversation, page] = await Promise.all([get(path, null, options), get(`${path}/messages`, { order: "desc", limit: PAGE }, options)]);
    const known = new Set(page.chats.map((chat) => chat.id));
    // What was read before and is older stays.
    const oldest = page.data.length ? page.data.map((message) => message.chatId).sort()[0] : "";
    const older = (row, id) => id < oldest && !known.has(id);
    this.messages = [...this.messages.filter((message) => older(message, message.chatId)), ...page.data];
    this.chats = [...this.chats.filter((chat) => older(chat, chat.id)), ...page.chats];
    if (!this.conversation) this.cursor = page.nextCursor;
    this.#changed(conversation);
    fill(this.before);
    this.#show();
  }

  async #reread() {
    try {
      await this.#read();
    } catch { /* What is shown stays; the next event tries again. */ }
  }

  async #readOlder() {
    const page = await get(`/api/conversations/${encodeURIComponent(this.id)}/messages`, { order: "desc", limit: PAGE, cursor: this.cursor });
    this.messages.push(...page.data);
    this.chats.push(...page.chats.filter((chat) => !this.chats.some((known) => known.id === chat.id)));
    this.cursor = page.nextCursor;
    const height = this.scroller.scrollHeight;
    this.#show();
    this.scroller.scrollTop += this.scroller.scrollHeight - height;
  }

  #changed(conversation) {
    if (conversation.deleted) {
      this.gone.abort();
      this.thread.replaceChildren();
      fill(this.before, notice("info", t("chat.deleted")));
      this.composer.setEnabled(false);
      return;
    }
    this.conversation = { ...this.conversation, ...conversation };
    const title = this.conversation.title || t("list.untitled");
    this.onTitle?.(title);
    const more = iconButton("more", t("list.actions", { title }), () => menu(more, [
      { label: t("list.rename"), icon: "rename", run: () => rename(this.conversation) },
      { label: t("list.archive"), icon: "archive", run: () => archive(this.conversation) },
      { label: t("list.delete"), icon: "delete", danger: true, run: () => remove(this.conversation) },
    ]), { "aria-haspopup": "menu", "aria-expanded": "false" });
    fill(this.head, h("h1", { title }, title), more);
    if (!this.run) this.composer.choose(this.conversation.model);
  }

  /** What the tab has of this conversation and the record does not. */
  #kept() {
    const ended = new Set(this.chats.filter((chat) => chat.status !== "started").map((chat) => chat.id));
    ended.forEach(drop);
    return Object.values(kept()).filter((run) => run.conversationId === this.id && !ended.has(run.chatId) && run.chatId !== this.run?.chatId);
  }

  /** The turns: of the record, of the tab, and the one under way. */
  #turns() {
    // A chat that is under way here is shown from here.
    const own = (id) => id !== this.run?.chatId;
    const turns = turnsOf(this.messages.filter((message) => own(message.chatId)), this.chats.filter((chat) => own(chat.id)));
    for (const run of this.#kept()) {
      const answer = { chatId: run.chatId, status: run.status === "streaming" ? "waiting" : run.status, text: run.text, reasoning: run.reasoning, error: run.error ? { message: run.error } : null, toolCalls: [], model: run.model, tokens: null };
      const there = turns.find((turn) => turn.answer.chatId === run.chatId);
      if (there) there.answer = { ...answer, status: run.status === "streaming" ? "waiting" : run.status };
      else turns.push({ key: run.chatId, asked: run.question, role: "user", at: run.at, answer, earlier: [] });
    }
    turns.sort((a, b) => (a.key < b.key ? -1 : 1));
    if (this.run) {
      const turn = { key: "run", asked: this.run.question, role: "user", at: this.run.at, answer: { toolCalls: [], model: this.run.model, tokens: null, chatId: this.run.chatId, ...this.run.answer }, earlier: [] };
      const before = turns.at(-1);
      if (this.run.retries && before?.asked === turn.asked) {
        before.earlier.push(before.answer);
        before.answer = turn.answer;
      } else {
        turns.push(turn);
      }
    }
    return turns;
  }

  #show() {
    if (this.gone.signal.aborted) return;
    const atEnd = this.#isAtEnd();
    const turns = this.#turns();
    const views = turns.map((turn, place) => {
      const view = this.views.get(turn.key) ?? new TurnView();
      this.views.set(turn.key, view);
      const isLast = place === turns.length - 1;
      view.show(turn, { retry: isLast && !this.run && turn.role === "user" ? () => this.send(turn.asked, { retries: true }) : null });
      return view.element;
    });
    if (views.some((element, place) => this.thread.children[place] !== element) || this.thread.children.length !== views.length) fill(this.thread, views);
    if (this.cursor) fill(this.before, h("button.button.secondary.small", { type: "button", onclick: () => this.#readOlder() }, t("chat.older")));
    turns.filter((turn) => turn.answer.status === "waiting").forEach((turn) => this.#await(turn.answer.chatId));
    if (atEnd) this.#toEnd(false);
    this.#scrolled();
  }

  /** An answer whose end the record does not have yet: shown when it lands. */
  async #await(chatId) {
    if (this.waiting.has(chatId)) return;
    this.waiting.add(chatId);
    if (await recorded(chatId, this.gone.signal)) await this.#reread();
    this.waiting.delete(chatId);
  }

  /** Asks. */
  async send(text, { retries = false } = {}) {
    if (this.run) return;
    const turns = this.#turns();
    const told = retries ? turns.slice(0, -1) : turns;
    const run = new Run({ conversationId: this.id, model: this.composer.model, question: text, messages: toMessages(told, text) });
    run.retries = retries;
    this.element.classList.remove("new");
    this.#follow(run);
    this.#show();
    this.#toEnd(true);
  }

  #follow(run) {
    this.run = run;
    const { signal } = this.gone;
    this.composer.setBusy(true);
    announce(t("answer.begun"));
    run.addEventListener("started", () => this.#started(run), { signal });
    run.addEventListener("grown", () => this.#show(), { signal });
    run.addEventListener("ended", () => this.#ended(run), { signal });
    if (run.chatId) this.composer.accepted();
  }

  #started(run) {
    this.composer.accepted();
    if (this.id === run.conversationId) return;
    this.id = run.conversationId;
    relocate(`/c/${encodeURIComponent(this.id)}`);
  }

  async #ended(run) {
    this.run = null;
    this.views.delete("run");
    this.composer.setBusy(false);
    const { answer, chatId } = run;
    announce(t(answer.status === "complete" ? "answer.done" : answer.stopped ? "answer.stopped" : "answer.failed"));
    if (!chatId) {
      // Refused before it began: nothing is on the record, and the question goes back to where it was written.
      fill(this.before, notice("bad", answer.error?.message ?? t("answer.failed")));
      this.composer.restore(run.question);
      if (!this.id) this.element.classList.add("new");
      this.#show();
      this.before.scrollIntoView({ block: "nearest" });
      return;
    }
    fill(this.before);
    this.#show();
    if (await recorded(chatId, this.gone.signal)) {
      await this.#reread();
      changes.dispatchEvent(new CustomEvent("change", { detail: { refresh: true } }));
    }
  }

  #isAtEnd() {
    return this.scroller.scrollHeight - this.scroller.scrollTop - this.scroller.clientHeight < 80;
  }

  #toEnd(smooth) {
    this.scroller.scrollTo({ top: this.scroller.scrollHeight, behavior: smooth ? "smooth" : "instant" });
  }

  #scrolled() {
    this.jump.hidden = this.#isAtEnd();
  }
}
