// Live events of the record from `GET /api/events`. Pages also work without the stream, but are updated later.

import { sitePath } from "./address.js";
import { getJson } from "./api.js";

const MAX_RECONNECT_DELAY_MS = 30_000;
const listeners = new Map();
let source = null;
let reconnectDelayMs = 1000;
let reconnectTimer = 0;
let isWanted = false;

/** Calls `callback` with the data of each event of this name. Returns a function that unsubscribes. */
export function subscribe(name, callback) {
  if (!listeners.has(name)) listeners.set(name, new Set());
  listeners.get(name).add(callback);
  return () => listeners.get(name).delete(callback);
}

/**
 * Passes an event to all subscribers. Changes made by this page are published directly, without waiting for the event of
 * the server.
 */
export function publish(name, data) {
  for (const callback of [...(listeners.get(name) ?? [])]) callback(data);
}

/** Connects to the event stream, and reconnects whenever the connection ends. */
export function connect() {
  disconnect();
  isWanted = true;
  source = new EventSource(sitePath("/api/events"));
  source.onopen = () => { reconnectDelayMs = 1000; };
  source.onerror = () => {
    // In the state CONNECTING the browser itself reconnects, with the id of the last event.
    if (source?.readyState !== EventSource.CLOSED) return;
    source = null;
    reconnectTimer = setTimeout(reconnect, reconnectDelayMs * (0.75 + Math.random() / 2));
    reconnectDelayMs = Math.min(reconnectDelayMs * 2, MAX_RECONNECT_DELAY_MS);
  };
  for (const name of ["chat", "conversation", "usage", "reset"]) {
    source.addEventListener(name, (event) => {
      publish(name, JSON.parse(event.data));
    });
  }
}

/** Reconnects. The stream ends when the access token expires, and any request of the API renews the token. */
async function reconnect() {
  try {
    await getJson("/api/auth/me");
  } catch { /* The next attempt may succeed. */ }
  if (!source) connect();
}

export function disconnect() {
  isWanted = false;
  close();
}

function close() {
  clearTimeout(reconnectTimer);
  source?.close();
  source = null;
}

// The browser may keep a page that the reader has left, to show the page again at once. Such a page must hold no connection: a browser
// has six for each origin, and the next page needs them.
addEventListener("pagehide", close);
addEventListener("pageshow", (event) => {
  if (event.persisted && isWanted) connect();
});
