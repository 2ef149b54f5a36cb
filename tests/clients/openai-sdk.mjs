// Runs the cases with OpenAI's unmodified Node SDK. Prints one line of JSON for each case with the response that the SDK
// received, which tests/tests/clients compares with the record.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const { GATEWAY_URL, TOKEN, MODULES } = process.env;
const { default: OpenAI, toFile } = await import(pathToFileURL(createRequire(`${MODULES}/`).resolve("openai")).href);

const CLIENT = "openai-node";
const messages = [{ role: "user", content: "How is the weather?" }];
const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } } }];

const client = (name, { token = TOKEN, retries = 2 } = {}) =>
  new OpenAI({
    baseURL: `${GATEWAY_URL}/v1`,
    apiKey: token,
    maxRetries: retries,
    defaultHeaders: { "x-stenograph-tags": `${CLIENT}:${name}` },
  });

async function attempt(name, run) {
  const saw = { client: CLIENT, case: name, text: "", tools: [], failed: false, status: null };
  try {
    await run(saw);
  } catch (error) {
    Object.assign(saw, { failed: true, status: error.status ?? null, error: `${error.constructor.name}: ${error.message}` });
  }
  console.log(JSON.stringify(saw));
}

async function stream(saw, name, options) {
  for await (const chunk of await client(name, options).chat.completions.create({ model: name, messages, stream: true })) {
    for (const choice of chunk.choices) saw.text += choice.delta.content ?? "";
  }
}

for (const name of ["stream", "retried", "error-in-stream", "cut"]) await attempt(name, (saw) => stream(saw, name));
await attempt("limited", (saw) => stream(saw, "limited", { retries: 0 }));
await attempt("unauthorized", (saw) => stream(saw, "unauthorized", { token: "no token" }));
await attempt("whole", async (saw) => {
  saw.text = (await client("whole").chat.completions.create({ model: "whole", messages })).choices[0].message.content;
});
const called = (calls) => calls.map(({ id, function: { name, arguments: text } }) => ({ id, name, arguments: JSON.parse(text) }));
await attempt("tools-stream", async (saw) => {
  const run = client("tools-stream").chat.completions.stream({ model: "tools-stream", messages, tools });
  saw.tools = called((await run.finalChatCompletion()).choices[0].message.tool_calls);
});
await attempt("tools", async (saw) => {
  const answer = await client("tools").chat.completions.create({ model: "tools", messages, tools });
  saw.tools = called(answer.choices[0].message.tool_calls);
});
await attempt("abort", async (saw) => {
  for await (const chunk of await client("abort").chat.completions.create({ model: "abort", messages, stream: true })) {
    saw.text += chunk.choices[0].delta.content ?? "";
    if (saw.text) break;
  }
});
await attempt("responses-stream", async (saw) => {
  const events = await client("responses-stream").responses.create({ model: "responses-stream", input: "How is the weather?", stream: true });
  for await (const event of events) if (event.type === "response.output_text.delta") saw.text += event.delta;
});
await attempt("responses", async (saw) => {
  saw.text = (await client("responses").responses.create({ model: "responses", input: "How is the weather?" })).output_text;
});
await attempt("background", async (saw) => {
  const { responses } = client("background");
  let answer = await responses.create({ model: "background", input: "How is the weather?", background: true });
  if (answer.status !== "queued") throw new Error(answer.status);
  while (["queued", "in_progress"].includes(answer.status)) answer = await responses.retrieve(answer.id);
  saw.text = answer.output_text;
});
await attempt("models", async (saw) => {
  const ids = [];
  for await (const model of client("models").models.list()) ids.push(model.id);
  saw.text = ids.join(" ");
});
await attempt("embeddings", async (saw) => {
  const made = await client("embeddings").embeddings.create({ model: "embeddings", input: ["first", "second"] });
  saw.text = `${made.data.filter((vector) => vector.embedding.length === 3).length} vectors, ${made.usage.total_tokens} tokens`;
});
await attempt("images", async (saw) => {
  const made = await client("images").images.generate({ model: "images", prompt: "a red square", n: 2 });
  saw.text = `${made.data.length} pictures, ${made.usage.total_tokens} tokens`;
});
await attempt("image-edit", async (saw) => {
  const image = await toFile(Buffer.alloc(400_000, 1), "square.png", { type: "image/png" });
  const made = await client("image-edit").images.edit({ model: "image-edit", image, prompt: "make it blue" });
  saw.text = `${made.data.length} pictures, ${made.usage.total_tokens} tokens`;
});
await attempt("speech", async (saw) => {
  const answer = await client("speech").audio.speech.create({ model: "speech", voice: "alloy", input: "Good morning." });
  saw.text = `${(await answer.arrayBuffer()).byteLength} bytes`;
});
await attempt("transcription", async (saw) => {
  const file = await toFile(Buffer.alloc(400_000, 1), "morning.wav", { type: "audio/wav" });
  saw.text = (await client("transcription").audio.transcriptions.create({ model: "transcription", file })).text;
});
