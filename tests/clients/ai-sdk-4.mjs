// Runs the cases with version 4 of the AI SDK.
import { run } from "./ai-sdk.mjs";

await run("ai-sdk-4", { ai: "ai4", provider: "ai4-openai", schemaMember: "parameters", argumentsMember: "args" });
