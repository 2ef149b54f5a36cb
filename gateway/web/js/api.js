// Requests to the API. An expired access token is refreshed once and the request repeated; the caller sees only the result.

import { t } from "./i18n.js";

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

let sessionLost = () => {};

/** Registers the function that is called when the session cannot be renewed. */
export function onSessionLost(callback) {
  sessionLost = callback;
}

/** Sends a request; resolves with the response if it is a success, throws an `ApiError` otherwise. */
export async function request(method, path, { body, query, signal, renew = true } = {}) {
  const response = await send(method, path, { body, query, signal });
  if (response.ok) return response;
  if (response.status === 401 && renew) {
    if (await renewSession()) return request(method, path, { body, query, signal, renew: false });
    sessionLost();
  }
  const text = await response.text().catch(() => "");
  let parsed = null;
  try { parsed = JSON.parse(text); } catch { /* The body is not JSON, for example an error page of a proxy. */ }
  throw new ApiError(response.status, parsed, response.headers);
}

/** Sends a request; resolves with the parsed JSON body of the response, or null for status 204. */
export async function requestJson(method, path, options) {
  const response = await request(method, path, options);
  return response.status === 204 ? null : response.json();
}

export const getJson = (path, query, options) => requestJson("GET", path, { query, ...options });

async function send(method, path, { body, query, signal }) {
  const parameters = Object.entries(query ?? {}).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const queryString = parameters.length ? `?${new URLSearchParams(parameters)}` : "";
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  try {
    return await fetch(path + queryString, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal, credentials: "same-origin" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, null);
  }
}

let renewal = null;

/**
 * Renews the session; concurrent callers share one request. A refresh token is valid once, and a second use ends the
 * session. A lock therefore lets one tab at a time refresh, each with the cookie that the previous tab received.
 */
function renewSession() {
  const renew = async () => (await send("POST", "/api/auth/refresh", { body: {} })).ok;
  const exclusively = navigator.locks ? () => navigator.locks.request("stenograph.refresh", renew) : renew;
  renewal ??= exclusively().catch(() => false).finally(() => { renewal = null; });
  return renewal;
}
