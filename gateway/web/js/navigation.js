// Changes of the address. router.js registers the function that shows the page of an address, so that pages and components
// can navigate without importing the router, which imports them.

import { clearSession } from "./session.js";

let showPage = async () => {};

/** Registers the function that shows the page that the address names; with `anew`, everything around the page too. */
export function onNavigate(callback) {
  showPage = callback;
}

/** Goes to a path of ours. */
export function navigate(path, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", path);
  return showPage();
}

/** The address changes, the page stays: a new conversation has got its id. */
export function replaceAddress(path) {
  history.replaceState(null, "", path);
  dispatchEvent(new Event("addresschange"));
}

/** Everything anew: words in another language, say. */
export function rebuildPage() {
  return showPage({ rebuild: true });
}

/** After the session has ended. */
export function navigateToLogin() {
  clearSession();
  history.pushState(null, "", "/login");
  return showPage({ rebuild: true });
}
