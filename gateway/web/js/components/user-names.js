// The names of users, for pages of administrators.

import { getJson } from "../api.js";

/** Names of users by id, as far as loaded. */
const userNames = new Map();
let request = null;

/** The name of a user, or the id if the name is not loaded. */
export const userName = (id) => userNames.get(id) ?? id;

export const knowsUser = (id) => userNames.has(id);

/** The loaded users: pairs of id and name. */
export const knownUsers = () => [...userNames];

export function noteUser(user) {
  userNames.set(user.id, user.name ?? user.id);
}

/** Loads the names of the first 100 users, in most installations all. Users without a loaded name are shown by id. */
export function loadUserNames() {
  request ??= getJson("/api/admin/users", { limit: 100 })
    .then((page) => page.data.forEach(noteUser))
    .catch(() => { request = null; });
  return request;
}
