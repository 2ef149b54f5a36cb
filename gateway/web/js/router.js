// From a path to a page.

import { onSessionLost } from "./api.js";
import { h, fill } from "./dom.js";
import { t } from "./i18n.js";
import * as live from "./live.js";
import { go, onNavigate } from "./navigation.js";
import { forget, resume } from "./session.js";
import * as session from "./session.js";
import { Shell } from "./components/shell.js";
import { loading, notice } from "./components/ui.js";

const app = document.getElementById("app");
let shell = null;
let here = 0;

const PAGES = [
  [/^\/$/, () => import("./pages/chat.js"), () => ({})],
  [/^\/c\/([^/]+)$/, () => import("./pages/chat.js"), ([, id]) => ({ id: decodeURIComponent(id) })],
  [/^\/settings$/, () => import("./pages/settings.js"), () => ({})],
  [/^\/admin(?:\/([^/]+))?$/, () => import("./pages/admin.js"), ([, section]) => ({ section: section ?? "usage" })],
];

/** Shows the page that the address names; with `anew`, everything around it too. */
async function show({ anew = false } = {}) {
  if (anew) leaveShell();
  const turn = ++here;
  const path = location.pathname;
  if (path === "/login" || path === "/register") {
    const { entrance } = await import("./pages/login.js");
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

function leaveShell() {
  shell?.leave();
  shell = null;
  live.disconnect();
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
onNavigate(show);
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

