// Tests the AI SDK's resumption, unmodified, against a running gateway whose model `slow` answers slowly:
//   npm install --prefix DIR node@22 ai && GATEWAY_URL=... DEMO_TOKEN=... AI_SDK=DIR/node_modules \
//     DIR/node_modules/.bin/node tests/clients/resume-chat.mjs
// Prints a line for each passed check and exits with 0, or prints the failed check and exits with 1.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import assert from "node:assert/strict";

const { GATEWAY_URL, DEMO_TOKEN, AI_SDK } = process.env;
const ai = createRequire(`${AI_SDK}/`).resolve("ai");
const { AbstractChat, DefaultChatTransport } = await import(pathToFileURL(ai).href);

// The state that `useChat` keeps in React, without React.
class State {
  status = "ready";
  error = undefined;
  constructor(messages) { this.messages = messages; }
  pushMessage = (message) => { this.messages = [...this.messages, message]; };
  popMessage = () => { this.messages = this.messages.slice(0, -1); };
  replaceMessage = (at, message) => { this.messages = this.messages.with(at, structuredClone(message)); };
  snapshot = (thing) => structuredClone(thing);
}

class Chat extends AbstractChat {
  constructor({ messages = [], ...options }) {
    super({ ...options, state: new State(messages) });
  }
}

const id = `resumed-${process.pid}`;
const headers = { authorization: `Bearer ${DEMO_TOKEN}`, "x-stenograph-on-leave": "drain" };
const transport = new DefaultChatTransport({ api: `${GATEWAY_URL}/api/chat`, headers, body: { model: "slow" } });
const text = (message) => message.parts.filter((part) => part.type === "text").map((part) => part.text).join("");

// The page that asks, and is closed in the middle of the answer.
const first = new Chat({ id, transport });
const asking = first.sendMessage({ text: "Tell me slowly" });
while (!(first.messages[1] && text(first.messages[1]))) await new Promise((resolve) => setTimeout(resolve, 10));
const [question, begun] = structuredClone(first.messages);
await first.stop();
await asking;

// The page that is opened again, with the messages that the record has by now.
const second = new Chat({ id, transport, messages: [question] });
await second.resumeStream();
assert.equal(second.error, undefined);
assert.equal(second.status, "ready");
assert.equal(second.messages.length, 2);
const answer = second.messages[1];
assert.equal(answer.id, begun.id);
assert.ok(text(answer).startsWith(text(begun)) && text(answer).length > text(begun).length);
assert.equal(answer.parts.filter((part) => part.type === "text").length, 1);
console.log("resume-chat: an answer of", text(answer).length, "characters, of which", text(begun).length, "came before the reload");
console.log("ANSWER", JSON.stringify(text(answer)));

const third = new Chat({ id, transport, messages: second.messages });
await third.resumeStream();
assert.equal(third.error, undefined);
assert.equal(third.status, "ready");
assert.deepEqual(third.messages, second.messages);
console.log("resume-chat: nothing to resume after the end");
