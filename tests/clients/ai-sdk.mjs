// Runs the cases with a version of the AI SDK and of its provider for OpenAI. Used by the scripts of each version.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const { GATEWAY_URL, TOKEN, MODULES } = process.env;
const load = (name) => import(pathToFileURL(createRequire(`${MODULES}/`).resolve(name)).href);
const schema = { type: "object", properties: { city: { type: "string" } } };

// `schemaMember` is the member of a tool that has the schema of its arguments, `argumentsMember` that of a call.
export async function run(CLIENT, { ai, provider, schemaMember, argumentsMember }) {
  const { streamText, generateText, embedMany, tool, jsonSchema } = await load(ai);
  const { createOpenAI } = await load(provider);
  const openai = (name, token = TOKEN) =>
    createOpenAI({ baseURL: `${GATEWAY_URL}/v1`, apiKey: token, headers: { "x-stenograph-tags": `${CLIENT}:${name}` } });
  const request = (name, more) => ({ model: openai(name, more?.token).chat(name), prompt: "How is the weather?", ...more });
  const tools = { weather: tool({ description: "The weather", [schemaMember]: jsonSchema(schema) }) };
  const called = (calls) =>
    calls.map((call) => ({ id: call.toolCallId, name: call.toolName, arguments: call[argumentsMember] }));

  async function attempt(name, steps) {
    const saw = { client: CLIENT, case: name, text: "", tools: [], failed: false, status: null };
    try {
      await steps(saw);
    } catch (error) {
      const cause = error.lastError ?? error;
      // An error within a stream has no status of a failure.
      const status = cause.statusCode >= 400 ? cause.statusCode : null;
      Object.assign(saw, { failed: true, status, error: `${cause.name}: ${cause.message}` });
    }
    console.log(JSON.stringify(saw));
  }

  async function stream(saw, name, more) {
    const stop = new AbortController();
    const options = { ...request(name, more), abortSignal: stop.signal, onError: () => {} };
    for await (const part of streamText(options).fullStream) {
      if (part.type === "error") throw part.error;
      if (part.type === "text-delta") saw.text += part.textDelta ?? part.text;
      if (part.type === "tool-call") saw.tools.push(...called([part]));
      if (name === "abort" && saw.text) {
        stop.abort();
        break;
      }
    }
  }

  for (const name of ["stream", "retried", "error-in-stream", "cut", "abort"]) {
    await attempt(name, (saw) => stream(saw, name));
  }
  await attempt("limited", (saw) => stream(saw, "limited", { maxRetries: 0 }));
  await attempt("unauthorized", (saw) => stream(saw, "unauthorized", { token: "no token" }));
  await attempt("tools-stream", (saw) => stream(saw, "tools-stream", { tools }));
  await attempt("tools", async (saw) => {
    saw.tools = called((await generateText(request("tools", { tools }))).toolCalls);
  });
  await attempt("whole", async (saw) => {
    saw.text = (await generateText(request("whole"))).text;
  });
  await attempt("embeddings", async (saw) => {
    const provider = openai("embeddings");
    const model = (provider.textEmbeddingModel ?? provider.embeddingModel).call(provider, "embeddings");
    const { embeddings, usage } = await embedMany({ model, values: ["first", "second"] });
    saw.text = `${embeddings.length} vectors, ${usage.tokens} tokens`;
  });
}
