// Who is here. The proof is in HttpOnly cookies that no script can read; what is kept here is only how to greet them.

import { ApiError, get, json } from "./api.js";
import { preferences, tab } from "./storage.js";

/** The user, or null. */
export let user = null;

/** Finds out who is here. While accounts are out of reach, whoever was here last: chats do not need the recorder. */
export async function resume() {
  try {
    keep(await get("/api/auth/me"));
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401) return forget();
    const last = preferences.get("user");
    if (!last) throw error;
    user = JSON.parse(last);
  }
}

export async function login(name, password) {
  keep((await json("POST", "/api/auth/login", { body: { name, password }, renew: false })).user);
}

export async function register(inviteCode, name, password) {
  keep((await json("POST", "/api/auth/register", { body: { inviteCode, name, password }, renew: false })).user);
}

export async function logout() {
  await json("POST", "/api/auth/logout", { body: {}, renew: false });
  forget();
}

/** The session is over: nothing of the user stays behind. */
export function forget() {
  user = null;
  preferences.remove("user");
  tab.remove("runs");
  tab.remove("draft");
}

function keep(found) {
  user = found;
  preferences.set("user", JSON.stringify({ id: found.id, name: found.name, role: found.role }));
}
