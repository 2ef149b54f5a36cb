// Follows the answer of a running chat from any connection: after a reload, or in another tab.

import { ApiError, request } from "./api.js";
import { readServerSentEvents } from "./server-sent-events.js";

/** The delays between attempts to connect, in milliseconds. The last one is repeated. */
const RECONNECT_DELAYS_MS = [200, 500, 1000, 2000, 5000];

/**
 * Follows the answer of a chat to its end. `onDelta` receives `{text, reasoning}` after each piece. Resolves with `{status, text, reasoning,
 * error, stopped, finishReason}`, as `streamChat` does, or with null if the chat cannot be followed. A connection that breaks off is made
 * again, and goes on after the last event.
 */
export async function followAnswer({ chatId, signal, onDelta }) {
  const answer = { status: "partial", text: "", reasoning: "", error: null, stopped: false, finishReason: null };
  let lastId = null;
  for (let attempt = 0; ; attempt += 1) {
    try {
      const headers = lastId ? { "last-event-id": lastId } : {};
      const response = await request("GET", `/api/chats/${encodeURIComponent(chatId)}/stream`, { headers, signal });
      if (response.status === 204) return null;
      for await (const { data, event, id } of readServerSentEvents(response.body)) {
        attempt = 0;
        lastId = id ?? lastId;
        apply(event, JSON.parse(data), answer);
        if (event === "end") return answer;
        if (event !== "start") onDelta(answer);
      }
    } catch (error) {
      if (signal.aborted) return { ...answer, stopped: true };
      if (error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 429) return null;
    }
    await new Promise((resolve) => setTimeout(resolve, RECONNECT_DELAYS_MS[Math.min(attempt, RECONNECT_DELAYS_MS.length - 1)]));
    if (signal.aborted) return { ...answer, stopped: true };
  }
}

function apply(event, data, answer) {
  if (event === "reset") Object.assign(answer, { text: "", reasoning: "" });
  if (event === "delta") {
    answer.text += data.text ?? data.refusal ?? "";
    answer.reasoning += data.reasoning ?? "";
  }
  if (event !== "end") return;
  answer.finishReason = data.finishReason;
  answer.stopped = data.finishReason === "stopped_by_user" || data.stage === "stopped_by_user";
  answer.error = data.error ? new ApiError(200, { error: { message: data.error } }) : null;
  const isWhole = data.status === "completed" && !answer.stopped && data.finishReason !== "client_gone";
  answer.status = isWhole ? "complete" : answer.text || answer.stopped ? "partial" : "failed";
}
