// Changes of the address. router.js registers the function that shows the page of an address, so that pages and components
// can navigate without importing the router, which imports them.

import { forget } from "./session.js";

let show = async () => {};

/** Registers the function that shows the page that the address names; with `anew`, everything around the page too. */
export function onNavigate(f) {
  show = f;
}

/** Goes to a path of ours. */
export function go(path, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", path);
  return show();
}

/** The address changes, the page stays: a new conversation has got its id. */
export function rename(path) {
  history.replaceState(null, "", path);
  dispatchEvent(new Event("addresschange"));
}

/** Everything anew: words in another language, say. */
export function showAnew() {
  return show({ anew: true });
}

/** After the session has ended. */
export function loggedOut() {
  forget();
  history.pushState(null, "", "/login");
  return show({ anew: true });
}
