// Active chats: answers that are still being streamed. An active chat continues while the user looks at another page. The
// text received so far is stored in the tab, so that a reloaded page can show the text until the chat is recorded.

import { followAnswer } from "./answer-stream.js";
import { getJson, request } from "./api.js";
import { streamChat } from "./chat-stream.js";
import * as live from "./live.js";
import { tabStorage } from "./storage.js";

/** The maximum number of characters that are stored of one answer, and of its reasoning. */
const MAX_STORED_CHARACTERS = 400_000;
/** The maximum number of chats that are stored; older chats are dropped first. */
const MAX_STORED_CHATS = 6;

/** The maximum time of a request to stop a chat. */
const STOP_TIMEOUT_MS = 3000;

const activeChats = new Set();

/** The active chat of this conversation, or null. */
export const activeChatIn = (conversationId) => [...activeChats].find((chat) => chat.conversationId === conversationId) ?? null;

/**
 * One question and the streamed answer. Dispatches the events `started`, `updated` and `ended`. With a `chatId`, the chat runs already, and
 * its answer is followed; the status is `waiting` at the end if that is not possible.
 */
export class ActiveChat extends EventTarget {
  constructor({ conversationId, model, question, messages, chatId = null, createdAt = new Date().toISOString(), text = "", reasoning = "" }) {
    super();
    Object.assign(this, { conversationId, model, question, chatId, createdAt });
    this.answer = { status: "streaming", text, reasoning, error: null };
    this.controller = new AbortController();
    if (chatId) this.#resume();
    else this.#run(messages);
  }

  async #resume() {
    activeChats.add(this);
    const { chatId, controller: { signal } } = this;
    // The answer comes from its start: until it has come as far as what is shown, that stays.
    const onDelta = ({ text, reasoning }) => {
      if (text.length < this.answer.text.length && this.answer.text.startsWith(text)) return;
      Object.assign(this.answer, { text, reasoning });
      this.#storeSoon();
      this.#emit("updated");
    };
    const result = await followAnswer({ chatId, signal, onDelta });
    if (isUnloading) return;
    if (!result) this.answer = { ...this.answer, status: "waiting" };
    else this.#end(result);
    this.#finish();
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
    // A stream that is aborted because the page is unloaded has not ended: the record will show its ending. Browsers abort
    // requests first and dispatch `pagehide` afterwards, hence the delay.
    if (result.error?.status === 0) await new Promise((resolve) => setTimeout(resolve, 500));
    if (isUnloading) return;
    this.#end(result);
    this.#finish();
  }

  #end(result) {
    this.answer = this.isStopping ? { ...result, status: "partial", stopped: true, error: null } : result;
  }

  #finish() {
    activeChats.delete(this);
    clearTimeout(this.storeTimer);
    this.storeTimer = null;
    if (this.chatId) store(this);
    this.#emit("ended");
  }

  /** The chat as it is stored in the tab until it is recorded. */
  toStored() {
    const { conversationId, chatId, model, question, createdAt } = this;
    const { text, reasoning, status, error, finishReason } = this.answer;
    return { conversationId, chatId, model, question, createdAt, status, text, reasoning, error: error?.message ?? null, finishReason: finishReason ?? null };
  }

  /**
   * Ends the chat at the request of the user. The gateway lets go of the provider, records the stop and ends the stream. A chat that
   * has no id yet, or whose gateway does not answer, is left instead.
   */
  async stop() {
    if (this.isStopping) return;
    this.isStopping = true;
    if (this.chatId) await stopChat(this.chatId);
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

/** Ends a chat, also one that another tab follows or nobody. Resolves when it has ended, and after 3 s at the latest. */
export async function stopChat(chatId) {
  try {
    await request("POST", `/api/chats/${encodeURIComponent(chatId)}/stop`, { signal: AbortSignal.timeout(STOP_TIMEOUT_MS) });
  } catch { /* The chat goes on to its end, or the record will show its ending. */ }
}

let isUnloading = false;
addEventListener("pagehide", () => {
  isUnloading = true;
  activeChats.forEach((chat) => chat.chatId && store(chat));
});
addEventListener("pageshow", () => { isUnloading = false; });

/** The chats stored in this tab, by id, which may not be recorded yet. */
export function storedChats() {
  try { return JSON.parse(tabStorage.get("active-chats")) ?? {}; } catch { return {}; }
}

function store(chat) {
  const chats = storedChats();
  const stored = chat.toStored();
  delete chats[stored.chatId];
  chats[stored.chatId] = { ...stored, text: stored.text.slice(0, MAX_STORED_CHARACTERS), reasoning: stored.reasoning.slice(0, MAX_STORED_CHARACTERS) };
  for (const old of Object.keys(chats).slice(0, -MAX_STORED_CHATS)) delete chats[old];
  tabStorage.set("active-chats", JSON.stringify(chats));
}

/** Removes a chat that has been recorded from the tab. */
export function removeStoredChat(chatId) {
  const chats = storedChats();
  if (!(chatId in chats)) return;
  delete chats[chatId];
  tabStorage.set("active-chats", JSON.stringify(chats));
}

/**
 * Waits until the end of a chat is recorded. A live event ends the wait; the chat is also polled, at intervals that grow
 * from 0.4 s to 15 s, in case no event arrives. Resolves with the chat, or with null if `signal` was aborted or the session
 * has ended.
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
        // The chat is not recorded yet, or the recorder is unreachable. Without a session, waiting is pointless.
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
