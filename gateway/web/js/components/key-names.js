// The names of API keys, for pages that show keys of which they have the ids.

import { getJson } from "../api.js";
import { t } from "../i18n.js";

const names = new Map();
let request = null;

/** The name of a key, or the id if the name is not loaded. */
export const keyName = (id) => (names.has(id) ? names.get(id) || t("keys.unnamed") : id);

/** The loaded keys: pairs of id and name. */
export const knownKeys = () => [...names];

/** Loads the names of the newest 100 keys of a list of keys. */
export async function noteKeyNames(path) {
  const page = await getJson(path, { limit: 100 }).catch(() => ({ data: [] }));
  page.data.forEach((key) => names.set(key.id, key.name));
}

/** Loads the names of the newest 100 keys, of the user or with `ofAll` of all users. Keys without a loaded name are shown by id. */
export function loadKeyNames({ ofAll = false } = {}) {
  request ??= noteKeyNames(ofAll ? "/api/admin/keys" : "/api/keys")
    // A key may be created at any time, so the names are read again by the next page.
    .finally(() => { request = null; });
  return request;
}
