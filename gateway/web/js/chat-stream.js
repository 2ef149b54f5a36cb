// Sends one chat and reads the streamed chunks of the provider.

import { ApiError, request } from "./api.js";
import { readServerSentEvents } from "./server-sent-events.js";

/** The answer goes on when the page is reloaded or closed, within the bounds of the deployment. */
const DRAIN = { "x-stenograph-on-leave": "drain" };

/** The text of a message content: a string, or an array of parts of which some have a text. */
function textOf(content) {
  if (typeof content === "string") return content;
  if (Array.isArray(content)) return content.map((part) => part?.text ?? "").join("");
  return "";
}

/**
 * Sends a chat. `onStart` receives the ids as soon as the response has headers, `onDelta` receives `{text, reasoning}`
 * after each chunk. Resolves with `{status, text, reasoning, error, stopped, finishReason}`. The status is `complete`,
 * `partial` (stopped by the user, or cut off) or `failed`.
 */
export async function streamChat({ conversationId, model, messages, signal, onStart, onDelta }) {
  const answer = { status: "partial", text: "", reasoning: "", error: null, stopped: false, finishReason: null };
  try {
    const body = { model, messages, stream: true, ...(conversationId ? { conversationId } : {}) };
    const response = await request("POST", "/api/chat", { body, signal, headers: DRAIN });
    onStart({ chatId: response.headers.get("x-chat-id"), conversationId: response.headers.get("x-conversation-id") });
    for await (const { data } of readServerSentEvents(response.body)) {
      if (data === "[DONE]") {
        answer.finishReason ??= "stop";
        continue;
      }
      applyChunk(JSON.parse(data), answer);
      onDelta(answer);
    }
    answer.status = answer.finishReason && !answer.error ? "complete" : "partial";
  } catch (error) {
    answer.stopped = signal.aborted;
    if (!signal.aborted) answer.error = error instanceof ApiError ? error : new ApiError(0, {});
    // A refused chat that has an id is recorded, so it is shown as a chat of its conversation.
    if (error.chatId) onStart({ chatId: error.chatId, conversationId: error.conversationId });
  }
  if (answer.status === "partial" && answer.text === "" && !answer.stopped) answer.status = "failed";
  return answer;
}

function applyChunk(chunk, answer) {
  if (chunk?.error) {
    answer.error = new ApiError(200, chunk);
    return;
  }
  const choice = chunk?.choices?.[0];
  const delta = choice?.delta;
  answer.text += textOf(delta?.content) || (typeof delta?.refusal === "string" ? delta.refusal : "");
  const reasoning = delta?.reasoning_content ?? delta?.reasoning;
  if (typeof reasoning === "string") answer.reasoning += reasoning;
  if (choice?.finish_reason) answer.finishReason = choice.finish_reason;
}
