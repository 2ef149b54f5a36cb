// What a browser keeps between visits, where it may; else, until the page is left.

const fallback = new Map();

/** Preferences: theme, language, last model. Never chats, never secrets. */
export const preferences = wrap(() => localStorage);

/** Things of this tab alone: an answer that is under way. Cleared at log out. */
export const tab = wrap(() => sessionStorage);

function wrap(storage) {
  const full = (name) => `stenograph.${name}`;
  return {
    get(name) {
      try { return storage().getItem(full(name)); } catch { return fallback.get(name) ?? null; }
    },
    set(name, value) {
      try { storage().setItem(full(name), value); } catch { fallback.set(name, value); }
    },
    remove(name) {
      fallback.delete(name);
      try { storage().removeItem(full(name)); } catch { /* Nothing was kept. */ }
    },
  };
}
