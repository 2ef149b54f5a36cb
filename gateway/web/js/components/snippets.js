// Examples of programs that use an API key, ready to be copied and run.

import { sitePath } from "../address.js";
import { h, iconButton, replaceChildren } from "../dom.js";
import { t } from "../i18n.js";
import { copyText, segmentedControl } from "./ui.js";

/** The clients: name, and the program for a base address, a key and a model. */
const CLIENTS = [
  ["curl", ({ base, key, model }) => `curl ${base}/v1/chat/completions \\
  -H "Authorization: Bearer ${key}" \\
  -H "Content-Type: application/json" \\
  -d ${shellQuoted(JSON.stringify({ model, messages: [{ role: "user", content: "Hello" }] }))}`],
  ["openai", ({ base, key, model }) => `from openai import OpenAI

client = OpenAI(
    base_url="${base}/v1",
    api_key="${key}",
)
answer = client.chat.completions.create(
    model=${quoted(model)},
    messages=[{"role": "user", "content": "Hello"}],
)
print(answer.choices[0].message.content)`],
  ["anthropic", ({ base, key, model }) => `from anthropic import Anthropic

client = Anthropic(
    base_url="${base}",
    api_key="${key}",
)
answer = client.messages.create(
    model=${quoted(model)},
    max_tokens=1024,
    messages=[{"role": "user", "content": "Hello"}],
)
print(answer.content[0].text)`],
  ["AI SDK", ({ base, key, model }) => `import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText } from "ai";

const stenograph = createOpenAICompatible({
  name: "stenograph",
  baseURL: "${base}/v1",
  apiKey: "${key}",
});
const { text } = await generateText({
  model: stenograph(${quoted(model)}),
  prompt: "Hello",
});
console.log(text);`],
];

/** A string literal of Python and JavaScript alike. */
const quoted = (text) => JSON.stringify(text);
const shellQuoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A switch between clients, and the program for the chosen one with a button that copies it. */
export function snippets(key, model) {
  const base = (location.origin + sitePath("/")).replace(/\/$/, "");
  const programs = new Map(CLIENTS.map(([name, program]) => [name, program({ base, key, model })]));
  const code = h("code", {});
  const box = h("pre.snippet", { tabindex: "0", role: "group", "aria-label": t("keys.example") }, code);
  let chosen = CLIENTS[0][0];
  const choose = (name) => { chosen = name; replaceChildren(code, programs.get(name)); };
  choose(chosen);
  return h("div.field", {}, h("span.label", {}, t("keys.example")),
    h("div.snippet-header", {}, segmentedControl(t("keys.client"), [...programs.keys()].map((name) => [name, name]), chosen, choose),
      iconButton("copy", t("keys.copyExample"), (event) => copyText(programs.get(chosen), event.currentTarget), { small: true })),
    box);
}
