// Who is here. The proof is in HttpOnly cookies that no script can read; what is kept here is only how to greet them.

import { ApiError, getJson, requestJson } from "./api.js";
import { preferences, tabStorage } from "./storage.js";

/** The user, or null. */
export let user = null;

/** Finds out who is here. While accounts are out of reach, whoever was here last: chats do not need the recorder. */
export async function restoreSession() {
  try {
    storeUser(await getJson("/api/auth/me"));
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401) return clearSession();
    const stored = preferences.get("user");
    if (!stored) throw error;
    user = JSON.parse(stored);
  }
}

export async function login(name, password) {
  storeUser((await requestJson("POST", "/api/auth/login", { body: { name, password }, renew: false })).user);
}

export async function register(inviteCode, name, password) {
  storeUser((await requestJson("POST", "/api/auth/register", { body: { inviteCode, name, password }, renew: false })).user);
}

export async function logout() {
  await requestJson("POST", "/api/auth/logout", { body: {}, renew: false });
  clearSession();
}

/** The session is over: nothing of the user stays behind. */
export function clearSession() {
  user = null;
  preferences.remove("user");
  tabStorage.remove("active-chats");
  tabStorage.remove("draft");
}

function storeUser(account) {
  user = account;
  preferences.set("user", JSON.stringify({ id: account.id, name: account.name, role: account.role }));
}
