// Tests the AI SDK's own transport and chat state against a running gateway whose model answers:
//   npm install --prefix DIR node@22 ai && GATEWAY_URL=... DEMO_TOKEN=... DEMO_MODEL=... AI_SDK=DIR/node_modules \
//     DIR/node_modules/.bin/node tests/clients/use-chat.mjs
// Prints a line for each passed check and exits with 0, or prints the failed check and exits with 1.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import assert from "node:assert/strict";

const { GATEWAY_URL, DEMO_TOKEN, DEMO_MODEL, AI_SDK } = process.env;
const ai = createRequire(`${AI_SDK}/`).resolve("ai");
const { AbstractChat, DefaultChatTransport } = await import(pathToFileURL(ai).href);

// The state that `useChat` keeps in React, without React.
class State {
  status = "ready";
  error = undefined;
  messages = [];
  pushMessage = (message) => { this.messages = [...this.messages, message]; };
  popMessage = () => { this.messages = this.messages.slice(0, -1); };
  replaceMessage = (at, message) => { this.messages = this.messages.with(at, structuredClone(message)); };
  snapshot = (thing) => structuredClone(thing);
}

class Chat extends AbstractChat {
  constructor(options) {
    super({ ...options, state: new State() });
  }
}

const transport = new DefaultChatTransport({
  api: `${GATEWAY_URL}/api/chat`,
  headers: { authorization: `Bearer ${DEMO_TOKEN}` },
  body: { model: DEMO_MODEL },
});
const chat = new Chat({ id: `thread-${process.pid}`, transport });

await chat.sendMessage({ text: "Hello from useChat" });
assert.equal(chat.error, undefined);
assert.equal(chat.status, "ready");
const text = (message) => message.parts.filter((part) => part.type === "text").map((part) => part.text).join("");
assert.equal(chat.messages.length, 2);
assert.ok(text(chat.messages[1]).length > 0);
console.log("use-chat: an answer of", text(chat.messages[1]).length, "characters");

await chat.sendMessage({ text: "And once more" });
assert.equal(chat.messages.length, 4);
assert.ok(text(chat.messages[3]).length > 0);
console.log("use-chat: a second turn of the same thread");

await chat.regenerate();
assert.equal(chat.messages.length, 4);
assert.equal(chat.status, "ready");
console.log("use-chat: an answer made anew");

const refused = new Chat({ id: "thread-x", transport: new DefaultChatTransport({ api: `${GATEWAY_URL}/api/chat` }) });
await refused.sendMessage({ text: "without a token" });
assert.equal(refused.status, "error");
assert.match(refused.error.message, /no token/);
console.log("use-chat: an error is shown as one");
