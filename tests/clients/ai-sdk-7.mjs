// Runs the cases with version 7 of the AI SDK.
import { run } from "./ai-sdk.mjs";

await run("ai-sdk-7", { ai: "ai", provider: "@ai-sdk/openai", schemaMember: "inputSchema", argumentsMember: "input" });
