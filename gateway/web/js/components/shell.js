// The shell around every page of a logged-in user: the conversation list, the user menu and the keyboard shortcuts.

import { h, icon, iconButton, replaceChildren } from "../dom.js";
import { currentLanguage, languages, setLanguage, t } from "../i18n.js";
import { navigate, navigateToLogin, rebuildPage } from "../navigation.js";
import { logout, user } from "../session.js";
import { currentTheme, cycleTheme } from "../theme-choice.js";
import { ConversationList } from "./conversation-list.js";
import { menu, toast } from "./ui.js";

/** On a narrow screen the sidebar is a drawer. */
const narrowScreen = matchMedia("(max-width: 52rem)");

export class Shell {
  constructor() {
    this.list = new ConversationList();
    this.main = h("main.main", { id: "main", tabindex: "-1" });
    this.title = h("div.topbar-title", {});
    this.menuButton = iconButton("menu", t("nav.open"), () => this.setSidebarOpen(true), { "aria-expanded": "false", "aria-controls": "sidebar" });
    const topbar = h("header.topbar", {}, this.menuButton, this.title, h("a.icon-button", { href: "/", "aria-label": t("nav.new"), title: t("nav.new") }, icon("compose")));
    const userButton = h("button.user", { type: "button", "aria-haspopup": "menu", "aria-expanded": "false", "aria-label": t("nav.account", { name: user.name ?? user.id }), onclick: () => this.#openUserMenu(userButton) },
      h("span.avatar", { "aria-hidden": "true", "data-letter": [...(user.name ?? user.id)][0].toUpperCase() }), h("span.user-name", {}, user.name ?? user.id), icon("more"));
    this.sidebar = h("nav.sidebar", { id: "sidebar", "aria-label": t("nav.conversations") },
      h("div.sidebar-header", {},
        h("a.wordmark", { href: "/", "aria-label": "Stenograph" }, icon("mark"), h("span", {}, "Stenograph")),
        iconButton("close", t("nav.close"), () => this.setSidebarOpen(false), { class: "narrow-only" })),
      h("a.button.secondary.wide.new-chat", { href: "/", "aria-keyshortcuts": "Control+Shift+O" }, icon("compose"), t("nav.new")),
      this.list.element,
      userButton);
    this.backdrop = h("div.backdrop", { onclick: () => this.setSidebarOpen(false) });
    this.element = h("div.shell", {}, h("a.skip-link", { href: "#main", onclick: (event) => { event.preventDefault(); this.main.focus(); } }, t("nav.skip")), this.sidebar, this.backdrop, h("div.content", {}, topbar, this.main));
    this.onKeyDown = (event) => this.#handleShortcut(event);
    addEventListener("keydown", this.onKeyDown);
    this.onAddressChange = () => this.list.markCurrent();
    addEventListener("addresschange", this.onAddressChange);
    this.onWidthChange = () => this.setSidebarOpen(false);
    narrowScreen.addEventListener("change", this.onWidthChange);
    this.setSidebarOpen(false);
  }

  /** Shows a page: `{element, title, mounted, destroy}`. The page may change the title later with `onTitle`. */
  show(page) {
    this.page?.destroy?.();
    this.page = page;
    replaceChildren(this.main, page.element);
    this.#setTitle(page.title);
    page.onTitle = (title) => this.#setTitle(title);
    this.setSidebarOpen(false);
    this.list.markCurrent();
    page.mounted?.();
  }

  /** Shows an element in place of a page that is not loaded yet. */
  showPlaceholder(element) {
    this.page?.destroy?.();
    this.page = null;
    replaceChildren(this.main, element);
  }

  #setTitle(title) {
    document.title = title ? `${title} · Stenograph` : "Stenograph";
    replaceChildren(this.title, title || "Stenograph");
  }

  /** Opens or closes the sidebar on a narrow screen. */
  setSidebarOpen(open) {
    const wasOpen = this.element.classList.contains("sidebar-open");
    this.element.classList.toggle("sidebar-open", open);
    this.menuButton.setAttribute("aria-expanded", String(open));
    // A hidden sidebar must not be reachable by keyboard.
    this.sidebar.inert = narrowScreen.matches && !open;
    if (open) this.sidebar.querySelector("a, button, input")?.focus();
    else if (wasOpen && narrowScreen.matches) this.menuButton.focus();
  }

  destroy() {
    this.page?.destroy?.();
    this.list.destroy();
    removeEventListener("keydown", this.onKeyDown);
    removeEventListener("addresschange", this.onAddressChange);
    narrowScreen.removeEventListener("change", this.onWidthChange);
  }

  #openUserMenu(button) {
    menu(button, [
      user.name ?? user.id,
      { label: t("nav.settings"), icon: "settings", onSelect: () => navigate("/settings") },
      { label: t("nav.keys"), icon: "key", onSelect: () => navigate("/settings/keys") },
      user.role === "admin" ? { label: t("nav.admin"), icon: "admin", onSelect: () => navigate("/admin") } : undefined,
      null,
      ...languages.map(([tag, name]) => ({ label: name, icon: "language", checked: tag === currentLanguage(), onSelect: () => { setLanguage(tag); rebuildPage(); } })),
      null,
      { label: t("theme.is", { theme: t(`theme.${currentTheme()}`) }), icon: "theme", onSelect: () => { cycleTheme(); } },
      { label: t("nav.logout"), icon: "logout", onSelect: () => endSession() },
    ].filter((item) => item !== undefined));
  }

  #handleShortcut(event) {
    if (!(event.ctrlKey || event.metaKey) || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key === "k" && !event.shiftKey) {
      this.setSidebarOpen(true);
      this.list.focusSearch();
    } else if (key === "o" && event.shiftKey) {
      navigate("/");
    } else {
      return;
    }
    event.preventDefault();
  }
}

async function endSession() {
  try {
    await logout();
    await navigateToLogin();
  } catch (error) {
    toast(error.message);
  }
}
