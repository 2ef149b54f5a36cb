// Browser storage. Where storage is forbidden, values are kept in memory until the page is closed.

const fallback = new Map();

/** Preferences in `localStorage`: theme, language, last model, name of the user. Never chats, never secrets. */
export const preferences = withFallback(() => localStorage);

/** Data of this tab in `sessionStorage`: active chats and the drafts of questions. Cleared at logout. */
export const tabStorage = withFallback(() => sessionStorage);

function withFallback(storage) {
  const prefixed = (name) => `stenograph.${name}`;
  return {
    get(name) {
      try { return storage().getItem(prefixed(name)); } catch { return fallback.get(name) ?? null; }
    },
    set(name, value) {
      try { storage().setItem(prefixed(name), value); } catch { fallback.set(name, value); }
    },
    remove(name) {
      fallback.delete(name);
      try { storage().removeItem(prefixed(name)); } catch { /* Storage is forbidden, so there is nothing to remove. */ }
    },
  };
}
