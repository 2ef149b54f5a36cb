// Answers under way. They go on while the reader looks at another page, and what has come is kept in the tab, so that a
// reload can show it until the record has it.

import { ask } from "./answer.js";
import { get } from "./api.js";
import * as live from "./live.js";
import { tab } from "./storage.js";

/** The most that is kept of one answer, in characters, and of how many. */
const KEPT_TEXT = 400_000;
const KEPT_RUNS = 6;

const running = new Set();

/** The run that belongs to this conversation, if one is under way. */
export const runIn = (conversationId) => [...running].find((run) => run.conversationId === conversationId) ?? null;

/** One question and the answer that is coming. Tells of `started`, `grown` and `ended`. */
export class Run extends EventTarget {
  constructor({ conversationId, model, question, messages }) {
    super();
    Object.assign(this, { conversationId, model, question, chatId: null, isNew: !conversationId, at: new Date().toISOString() });
    this.answer = { status: "streaming", text: "", reasoning: "", error: null };
    this.controller = new AbortController();
    this.done = this.#go(messages);
  }

  async #go(messages) {
    running.add(this);
    const ended = await ask({
      conversationId: this.conversationId,
      model: this.model,
      messages,
      signal: this.controller.signal,
      started: ({ chatId, conversationId }) => {
        this.chatId = chatId;
        this.conversationId = conversationId ?? this.conversationId;
        keep(this);
        this.#tell("started");
      },
      grown: ({ text, reasoning }) => {
        Object.assign(this.answer, { text, reasoning });
        this.#keepSoon();
        this.#tell("grown");
      },
    });
    // What breaks off because the page goes away is not over: the record will say how it ended. Browsers break off first, and
    // tell the page afterwards that it goes.
    if (ended.error?.status === 0) await new Promise((resolve) => setTimeout(resolve, 500));
    if (isLeaving) return;
    this.answer = ended;
    running.delete(this);
    clearTimeout(this.timer);
    this.timer = null;
    if (this.chatId) keep(this);
    this.#tell("ended");
  }

  /** The reader has seen enough. */
  stop() {
    this.controller.abort();
  }

  #keepSoon() {
    this.timer ??= setTimeout(() => {
      this.timer = null;
      keep(this);
    }, 250);
  }

  #tell(name) {
    this.dispatchEvent(new Event(name));
  }
}

let isLeaving = false;
addEventListener("pagehide", () => {
  isLeaving = true;
  running.forEach((run) => run.chatId && keep(run));
});
addEventListener("pageshow", () => { isLeaving = false; });

/** What this tab knows of answers that the record may not have yet: by chat. */
export function kept() {
  try { return JSON.parse(tab.get("runs")) ?? {}; } catch { return {}; }
}

function keep(run) {
  const all = kept();
  const { conversationId, chatId, model, question, at, answer } = run;
  const { text, reasoning, status, error } = answer;
  delete all[chatId];
  all[chatId] = { conversationId, chatId, model, question, at, status, text: text.slice(0, KEPT_TEXT), reasoning: reasoning.slice(0, KEPT_TEXT), error: error?.message ?? null };
  for (const old of Object.keys(all).slice(0, -KEPT_RUNS)) delete all[old];
  tab.set("runs", JSON.stringify(all));
}

/** The record has it: the tab need not keep it. */
export function drop(chatId) {
  const all = kept();
  if (!(chatId in all)) return;
  delete all[chatId];
  tab.set("runs", JSON.stringify(all));
}

/**
 * Waits until the record knows how a chat ended: told by live events, and asking now and then for when those do not come.
 * Resolves with the chat, or with null if it was given up.
 */
export async function recorded(chatId, signal) {
  let wake = () => {};
  const stop = live.on("chat", (chat) => { if (chat.id === chatId) wake(); });
  signal?.addEventListener("abort", () => wake());
  try {
    for (let wait = 400; !signal?.aborted; wait = Math.min(wait * 1.6, 15_000)) {
      try {
        const chat = await get(`/api/chats/${chatId}`, null, { signal });
        if (chat.status !== "started") return chat;
      } catch (error) {
        // Not there yet, or nobody to ask at the moment. Who is not logged in any more need not wait.
        if (error.status === 401) return null;
      }
      await new Promise((resolve) => {
        wake = resolve;
        setTimeout(resolve, wait);
      });
    }
  } finally {
    stop();
  }
  return null;
}
