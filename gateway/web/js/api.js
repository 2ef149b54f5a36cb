// Requests to the API. An expired access token is refreshed once and the request repeated; the caller sees only the result.

import { sitePath } from "./address.js";
import { t } from "./i18n.js";

/** The maximum time of a request and its response, except for streams. The gateway itself gives up on the record after 15 s. */
const TIMEOUT_MS = 60_000;
/** The maximum times of the attempts of a read: a read whose connection has died is repeated on another one. */
const READ_TIMEOUTS_MS = [20_000, 40_000];

/** A failed request. The message is translated where the error code is known. Status 0: there was no response. */
export class ApiError extends Error {
  constructor(status, body, headers) {
    const error = typeof body?.error === "object" && body.error ? body.error : {};
    super(errorMessage(status, error));
    this.status = status;
    this.code = error.code ?? null;
    this.param = error.param ?? null;
    this.chatId = headers?.get("x-chat-id") ?? null;
    this.conversationId = headers?.get("x-conversation-id") ?? null;
  }
}

function errorMessage(status, error) {
  const key = `error.${error.code}`;
  const translated = t(key);
  if (translated !== key) return translated;
  if (typeof error.message === "string" && error.message) return error.message;
  if (status === 0) return t("error.unreachable");
  return t("error.status", { status: String(status) });
}

/** No response, or no session, for a reason that may pass. */
const unreachable = (code) => new ApiError(0, { error: { code } });

let sessionLost = () => {};

/** Registers the function that is called when the session cannot be renewed. */
export function onSessionLost(callback) {
  sessionLost = callback;
}

/** Sends a request; resolves with the response if it is a success, throws an `ApiError` otherwise. */
export async function request(method, path, { body, query, signal, headers, renew = true } = {}) {
  const response = await send(method, path, { body, query, signal, headers });
  if (response.ok) return response;
  if (response.status === 401 && renew) {
    const renewed = await renewSession();
    if (renewed === "renewed") return request(method, path, { body, query, signal, headers, renew: false });
    if (renewed === "unavailable") throw unreachable("session_not_renewed");
    sessionLost();
  }
  const text = await response.text().catch(() => "");
  let parsed = null;
  try { parsed = JSON.parse(text); } catch { /* The body is not JSON, for example an error page of a proxy. */ }
  throw new ApiError(response.status, parsed, response.headers);
}

/** Sends a request; resolves with the parsed JSON body of the response, or null for status 204. */
export async function requestJson(method, path, options = {}) {
  for (const timeoutMs of method === "GET" ? READ_TIMEOUTS_MS : [TIMEOUT_MS]) {
    const timeout = AbortSignal.timeout(timeoutMs);
    const signal = options.signal ? AbortSignal.any([options.signal, timeout]) : timeout;
    try {
      const response = await request(method, path, { ...options, signal });
      return response.status === 204 ? null : await response.json();
    } catch (error) {
      if (!timeout.aborted || options.signal?.aborted) throw error;
    }
  }
  throw unreachable("timeout");
}

export const getJson = (path, query, options) => requestJson("GET", path, { query, ...options });

async function send(method, path, { body, query, signal, headers: more }) {
  const parameters = Object.entries(query ?? {}).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const queryString = parameters.length ? `?${new URLSearchParams(parameters)}` : "";
  const headers = { ...(body === undefined ? {} : { "content-type": "application/json" }), ...more };
  try {
    return await fetch(sitePath(path) + queryString, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal, credentials: "same-origin" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, null);
  }
}

let renewal = null;

/**
 * Renews the session; concurrent callers share one request. Resolves with `renewed`, with `ended` if the server has ended the
 * session, or with `unavailable` if nobody can tell, because the server gives no answer. A refresh token is valid once, and a second use ends the
 * session. A lock therefore lets one tab at a time refresh, each with the cookie that the previous tab received.
 */
function renewSession() {
  const renew = async () => {
    const { ok, status } = await send("POST", "/api/auth/refresh", { body: {}, signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (ok) return "renewed";
    return status === 401 ? "ended" : "unavailable";
  };
  const exclusively = navigator.locks ? () => navigator.locks.request("stenograph.refresh", renew) : renew;
  renewal ??= exclusively().catch(() => "unavailable").finally(() => { renewal = null; });
  return renewal;
}
