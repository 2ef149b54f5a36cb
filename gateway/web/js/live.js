// The record as it grows: `GET /api/events`. Pages work without it, only less promptly.

import { getJson } from "./api.js";

const MAX_RECONNECT_DELAY_MS = 30_000;
const listeners = new Map();
let source = null;
let reconnectDelayMs = 1000;
let reconnectTimer = 0;

/** Calls `f` with the data of each event of this name. Returns how to stop. */
export function subscribe(name, callback) {
  if (!listeners.has(name)) listeners.set(name, new Set());
  listeners.get(name).add(callback);
  return () => listeners.get(name).delete(callback);
}

/** Tells everyone: of what came, and of what this page did itself, which need not reconnectDelayMs for the record. */
export function publish(name, data) {
  for (const callback of [...(listeners.get(name) ?? [])]) callback(data);
}

/** Connects, and again whenever the connection ends. */
export function connect() {
  disconnect();
  source = new EventSource("/api/events");
  source.onopen = () => { reconnectDelayMs = 1000; };
  source.onerror = () => {
    // While it is only reconnecting, the browser does so by itself, with the id of the last event.
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

/** The stream ends with the access token: asking anything renews that. */
async function reconnect() {
  try {
    await getJson("/api/auth/me");
  } catch { /* Then the next try may do. */ }
  if (!source) connect();
}

export function disconnect() {
  clearTimeout(reconnectTimer);
  source?.close();
  source = null;
}
