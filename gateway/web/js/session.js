// The logged-in user. The tokens are in HttpOnly cookies that no script can read; only the name, id and role are kept here.

import { ApiError, getJson, requestJson } from "./api.js";
import { preferences, tabStorage } from "./storage.js";

/** The logged-in user, or null: `{id, name, role, createdAt}`. */
export let user = null;

/**
 * Restores the session from the cookies. While the recorder is unreachable, the stored user of the last visit is taken,
 * because chats do not need the recorder.
 */
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

/** Removes everything that the browser has stored for the user. */
export function clearSession() {
  user = null;
  preferences.remove("user");
  tabStorage.remove("active-chats");
  tabStorage.remove("drafts");
}

function storeUser(account) {
  user = account;
  preferences.set("user", JSON.stringify({ id: account.id, name: account.name, role: account.role }));
}
