// The router: shows the page of a path, and starts again when the path, the language or the session changes.

import { currentPath, isOfSite, pathOfLink } from "./address.js";
import { onSessionLost } from "./api.js";
import { Shell } from "./components/shell.js";
import { loadingIndicator, notice } from "./components/ui.js";
import { h, icon, replaceChildren } from "./dom.js";
import { t } from "./i18n.js";
import * as live from "./live.js";
import { navigate, onNavigate } from "./navigation.js";
import { clearSession, restoreSession, user } from "./session.js";

const app = document.getElementById("app");
let shell = null;
let latestNavigation = 0;

const ROUTES = [
  [/^\/$/, () => import("./pages/chat.js"), () => ({})],
  [/^\/c\/([^/]+)$/, () => import("./pages/chat.js"), ([, id]) => ({ id: decodeURIComponent(id) })],
  [/^\/calls\/([^/]+)$/, () => import("./pages/call.js"), ([, id]) => ({ id: decodeURIComponent(id) })],
  [/^\/settings(?:\/(calls|keys|limits|projects))?$/, () => import("./pages/settings.js"), ([, section]) => ({ section: section ?? "account" })],
  [/^\/admin(?:\/(calls|users|keys|limits|projects|failures|invites|audit))?$/, () => import("./pages/admin.js"), ([, section]) => ({ section: section ?? "usage" })],
];

/** Shows the page of the current address. `rebuild` also replaces the shell around the page. */
async function showPage({ rebuild = false } = {}) {
  if (rebuild) removeShell();
  const navigation = ++latestNavigation;
  const path = currentPath();
  if (path === "/login" || path === "/register") {
    const { loginPage } = await import("./pages/login.js");
    removeShell();
    if (navigation === latestNavigation) replaceChildren(app, loginPage(path.slice(1)));
    return;
  }
  const found = ROUTES.map(([pattern, load, parameters]) => [pattern.exec(path), load, parameters]).find(([match]) => match);
  if (!user) {
    if (!found) {
      removeShell();
      replaceChildren(app, h("main.error-page", {}, unknownAddress()));
      document.title = `${t("unknown.title")} · Stenograph`;
      return;
    }
    return navigate(`/login${path === "/" ? "" : `?next=${encodeURIComponent(path)}`}`, { replace: true });
  }
  if (!shell) {
    shell = new Shell();
    replaceChildren(app, shell.element);
    live.connect();
  }
  if (!found) {
    shell.show({ element: h("div.error-page", {}, unknownAddress()), title: t("unknown.title") });
    return;
  }
  const [match, load, parameters] = found;
  const placeholderTimer = setTimeout(() => navigation === latestNavigation && shell.showPlaceholder(loadingIndicator()), 200);
  try {
    const module = await load();
    if (navigation === latestNavigation) shell.show(module.page(parameters(match)));
  } catch (error) {
    // The most likely cause is a script that could not be fetched. Reloading the page helps.
    if (navigation === latestNavigation) shell.showPlaceholder(h("div.error-page", {}, notice("bad", t("error.unreachable")), h("button.button.primary", { type: "button", onclick: () => location.reload() }, t("retry"))));
    console.error(error);
  } finally {
    clearTimeout(placeholderTimer);
  }
}

/** The page of an address that leads nowhere. */
function unknownAddress() {
  return h("div.card.empty", {}, icon("mark"), h("h1", {}, t("unknown.title")), h("p", {}, t("unknown.text")), h("a.button.primary", { href: "/" }, t("unknown.home")));
}

function removeShell() {
  shell?.destroy();
  shell = null;
  live.disconnect();
}

// Links to pages of this site are followed without loading a document.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || link.target || !isOfSite(link) || event.defaultPrevented) return;
  if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  if (link.getAttribute("href").startsWith("#")) return;
  event.preventDefault();
  navigate(pathOfLink(link) + link.search);
});
addEventListener("popstate", () => showPage());
onNavigate(showPage);
onSessionLost(() => {
  if (!user) return;
  clearSession();
  removeShell();
  navigate(`/login?next=${encodeURIComponent(currentPath())}`);
});

/** Restores the session, then shows the first page. */
export async function start() {
  replaceChildren(app, loadingIndicator());
  try {
    await restoreSession();
  } catch (error) {
    replaceChildren(app, h("main.error-page", {}, notice("bad", error.message), h("button.button.primary", { type: "button", onclick: start }, t("retry"))));
    return;
  }
  await showPage();
}

