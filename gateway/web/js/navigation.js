// Changes of the address. The router registers the function that shows a page, so that pages and components can navigate
// without importing the router, which imports the pages and components.

import { sitePath } from "./address.js";
import { clearSession } from "./session.js";

let showPage = async () => {};

/** Registers the function that shows the page of the current address. The option `rebuild` also replaces the shell. */
export function onNavigate(callback) {
  showPage = callback;
}

/** Goes to a path of this site. `replace` overwrites the current entry of the history. */
export function navigate(path, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", sitePath(path));
  return showPage();
}

/** Changes the address and keeps the page: a new conversation has received its id. */
export function replaceAddress(path) {
  history.replaceState(null, "", sitePath(path));
  dispatchEvent(new Event("addresschange"));
}

/** Rebuilds the page and the shell, for example in another language. */
export function rebuildPage() {
  return showPage({ rebuild: true });
}

/** Clears the ended session and shows the login page. */
export function navigateToLogin() {
  clearSession();
  history.pushState(null, "", sitePath("/login"));
  return showPage({ rebuild: true });
}
