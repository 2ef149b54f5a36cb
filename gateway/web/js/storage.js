// What a browser keeps between visits, where it may; else, until the page is left.

const fallback = new Map();

/** Preferences: theme, language, last model. Never chats, never secrets. */
export const preferences = withFallback(() => localStorage);

/** Things of this tab alone: an answer that is under way. Cleared at log out. */
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
      try { storage().removeItem(prefixed(name)); } catch { /* Nothing was kept. */ }
    },
  };
}
