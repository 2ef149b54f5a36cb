// From a path to a page.

import { onSessionLost } from "./api.js";
import { h, fill } from "./dom.js";
import { t } from "./i18n.js";
import * as live from "./live.js";
import { forget, resume } from "./session.js";
import * as session from "./session.js";
import { Shell } from "./shell.js";
import { loading, notice } from "./ui.js";

const app = document.getElementById("app");
let shell = null;
let here = 0;

const PAGES = [
  [/^\/$/, () => import("./chat.js"), () => ({})],
  [/^\/c\/([^/]+)$/, () => import("./chat.js"), ([, id]) => ({ id: decodeURIComponent(id) })],
  [/^\/settings$/, () => import("./settings.js"), () => ({})],
  [/^\/admin(?:\/([^/]+))?$/, () => import("./admin.js"), ([, section]) => ({ section: section ?? "usage" })],
];

/** Goes to a path of ours. */
export function go(path, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", path);
  return show();
}

/** The address changes, the page stays: a new conversation has got its id. */
export function rename(path) {
  history.replaceState(null, "", path);
  shell?.located();
}

/** Shows the page that the address names; again, if words or colours have changed. */
export async function show() {
  const turn = ++here;
  const path = location.pathname;
  if (path === "/login" || path === "/register") {
    const { entrance } = await import("./entrance.js");
    leaveShell();
    if (turn === here) fill(app, entrance(path.slice(1)));
    return;
  }
  if (!session.user) return go(`/login${path === "/" ? "" : `?next=${encodeURIComponent(path)}`}`, { replace: true });
  if (!shell) {
    shell = new Shell();
    fill(app, shell.element);
    live.connect();
  }
  const found = PAGES.map(([pattern, load, parameters]) => [pattern.exec(path), load, parameters]).find(([match]) => match);
  if (!found) return go("/", { replace: true });
  const [match, load, parameters] = found;
  const slow = setTimeout(() => turn === here && shell.wait(loading()), 200);
  try {
    const module = await load();
    if (turn === here) shell.show(module.page(parameters(match)));
  } catch (error) {
    // A script could not be fetched, most likely: loading the page again is the way out.
    if (turn === here) shell.wait(h("div.away", {}, notice("bad", t("error.unreachable")), h("button.button.primary", { type: "button", onclick: () => location.reload() }, t("retry"))));
    console.error(error);
  } finally {
    clearTimeout(slow);
  }
}

/** Everything anew: words in another language, say. */
export function showAnew() {
  leaveShell();
  return show();
}

function leaveShell() {
  shell?.leave();
  shell = null;
  live.disconnect();
}

/** After the session has ended. */
export function loggedOut() {
  forget();
  leaveShell();
  return go("/login");
}

// Links to our own pages need no loading.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || link.target || link.origin !== location.origin || event.defaultPrevented) return;
  if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  if (link.getAttribute("href").startsWith("#")) return;
  event.preventDefault();
  go(link.pathname + link.search);
});
addEventListener("popstate", () => show());
onSessionLost(() => {
  if (!session.user) return;
  forget();
  leaveShell();
  go(`/login?next=${encodeURIComponent(location.pathname)}`);
});

/** The first page. */
export async function start() {
  fill(app, loading());
  try {
    await resume();
  } catch (error) {
    fill(app, h("main.away", {}, notice("bad", error.message), h("button.button.primary", { type: "button", onclick: start }, t("retry"))));
    return;
  }
  await show();
}

