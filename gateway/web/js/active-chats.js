// Answers under way. They go on while the reader looks at another page, and what has come is kept in the tab, so that a
// reload can show it until the record has it.

import { getJson } from "./api.js";
import { streamChat } from "./chat-stream.js";
import * as live from "./live.js";
import { tabStorage } from "./storage.js";

/** The most that is kept of one answer, in characters, and of how many. */
const MAX_STORED_CHARACTERS = 400_000;
const MAX_STORED_CHATS = 6;

const activeChats = new Set();

/** The run that belongs to this conversation, if one is under way. */
export const activeChatIn = (conversationId) => [...activeChats].find((chat) => chat.conversationId === conversationId) ?? null;

/** One question and the answer that is coming. Tells of `started`, `grown` and `ended`. */
export class ActiveChat extends EventTarget {
  constructor({ conversationId, model, question, messages }) {
    super();
    Object.assign(this, { conversationId, model, question, chatId: null, isNew: !conversationId, createdAt: new Date().toISOString() });
    this.answer = { status: "streaming", text: "", reasoning: "", error: null };
    this.controller = new AbortController();
    this.done = this.#run(messages);
  }

  async #run(messages) {
    activeChats.add(this);
    const result = await streamChat({
      conversationId: this.conversationId,
      model: this.model,
      messages,
      signal: this.controller.signal,
      onStart: ({ chatId, conversationId }) => {
        this.chatId = chatId;
        this.conversationId = conversationId ?? this.conversationId;
        store(this);
        this.#emit("started");
      },
      onDelta: ({ text, reasoning }) => {
        Object.assign(this.answer, { text, reasoning });
        this.#storeSoon();
        this.#emit("updated");
      },
    });
    // What breaks off because the page goes away is not over: the record will say how it ended. Browsers break off first, and
    // tell the page afterwards that it goes.
    if (result.error?.status === 0) await new Promise((resolve) => setTimeout(resolve, 500));
    if (isUnloading) return;
    this.answer = result;
    activeChats.delete(this);
    clearTimeout(this.storeTimer);
    this.storeTimer = null;
    if (this.chatId) store(this);
    this.#emit("ended");
  }

  /** The reader has seen enough. */
  stop() {
    this.controller.abort();
  }

  #storeSoon() {
    this.storeTimer ??= setTimeout(() => {
      this.storeTimer = null;
      store(this);
    }, 250);
  }

  #emit(name) {
    this.dispatchEvent(new Event(name));
  }
}

let isUnloading = false;
addEventListener("pagehide", () => {
  isUnloading = true;
  activeChats.forEach((chat) => chat.chatId && store(chat));
});
addEventListener("pageshow", () => { isUnloading = false; });

/** What this tabStorage knows of answers that the record may not have yet: by chat. */
export function storedChats() {
  try { return JSON.parse(tabStorage.get("active-chats")) ?? {}; } catch { return {}; }
}

function store(chat) {
  const chats = storedChats();
  const { conversationId, chatId, model, question, createdAt, answer } = chat;
  const { text, reasoning, status, error } = answer;
  delete chats[chatId];
  chats[chatId] = { conversationId, chatId, model, question, createdAt, status, text: text.slice(0, MAX_STORED_CHARACTERS), reasoning: reasoning.slice(0, MAX_STORED_CHARACTERS), error: error?.message ?? null };
  for (const old of Object.keys(chats).slice(0, -MAX_STORED_CHATS)) delete chats[old];
  tabStorage.set("active-chats", JSON.stringify(chats));
}

/** The record has it: the tabStorage need not keep it. */
export function removeStoredChat(chatId) {
  const chats = storedChats();
  if (!(chatId in chats)) return;
  delete chats[chatId];
  tabStorage.set("active-chats", JSON.stringify(chats));
}

/**
 * Waits until the record knows how a chat ended: told by live events, and asking now and then for when those do not come.
 * Resolves with the chat, or with null if it was given up.
 */
export async function waitUntilRecorded(chatId, signal) {
  let wake = () => {};
  const unsubscribe = live.subscribe("chat", (chat) => { if (chat.id === chatId) wake(); });
  signal?.addEventListener("abort", () => wake());
  try {
    for (let delayMs = 400; !signal?.aborted; delayMs = Math.min(delayMs * 1.6, 15_000)) {
      try {
        const chat = await getJson(`/api/chats/${chatId}`, null, { signal });
        if (chat.status !== "started") return chat;
      } catch (error) {
        // Not there yet, or nobody to ask at the moment. Who is not logged in any more need not wait.
        if (error.status === 401) return null;
      }
      await new Promise((resolve) => {
        wake = resolve;
        setTimeout(resolve, delayMs);
      });
    }
  } finally {
    unsubscribe();
  }
  return null;
}
