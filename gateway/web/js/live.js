// The record as it grows: `GET /api/events`. Pages work without it, only less promptly.

import { get } from "./api.js";

const LONGEST_WAIT = 30_000;
const listeners = new Map();
let source = null;
let wait = 1000;
let timer = 0;

/** Calls `f` with the data of each event of this name. Returns how to stop. */
export function on(name, f) {
  if (!listeners.has(name)) listeners.set(name, new Set());
  listeners.get(name).add(f);
  return () => listeners.get(name).delete(f);
}

/** Tells everyone: of what came, and of what this page did itself, which need not wait for the record. */
export function tell(name, data) {
  for (const f of [...(listeners.get(name) ?? [])]) f(data);
}

/** Connects, and again whenever the connection ends. */
export function connect() {
  disconnect();
  source = new EventSource("/api/events");
  source.onopen = () => { wait = 1000; };
  source.onerror = () => {
    // While it is only reconnecting, the browser does so by itself, with the id of the last event.
    if (source?.readyState !== EventSource.CLOSED) return;
    source = null;
    timer = setTimeout(again, wait * (0.75 + Math.random() / 2));
    wait = Math.min(wait * 2, LONGEST_WAIT);
  };
  for (const name of ["chat", "conversation", "usage", "reset"]) {
    source.addEventListener(name, (event) => {
      tell(name, JSON.parse(event.data));
    });
  }
}

/** The stream ends with the access token: asking anything renews that. */
async function again() {
  try {
    await get("/api/auth/me");
  } catch { /* Then the next try may do. */ }
  if (!source) connect();
}

export function disconnect() {
  clearTimeout(timer);
  source?.close();
  source = null;
}
