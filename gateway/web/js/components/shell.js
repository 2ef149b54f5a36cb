// What stands around every page of somebody who is here: conversations at the side, the user's menu, and keys.

import { ConversationList } from "./conversation-list.js";
import { fill, h, icon, iconButton } from "../dom.js";
import { language, languages, setLanguage, t } from "../i18n.js";
import { go, loggedOut, showAnew } from "../navigation.js";
import { logout, user } from "../session.js";
import { nextTheme, theme } from "../theme-choice.js";
import { menu, toast } from "./ui.js";

/** A phone: the side is a drawer. */
const narrow = matchMedia("(max-width: 52rem)");

export class Shell {
  constructor() {
    this.list = new ConversationList();
    this.main = h("main.main", { id: "main", tabindex: "-1" });
    this.title = h("div.bar-title", {});
    this.opener = iconButton("menu", t("nav.open"), () => this.open(true), { "aria-expanded": "false", "aria-controls": "side" });
    const bar = h("header.bar", {}, this.opener, this.title, h("a.icon-button", { href: "/", "aria-label": t("nav.new"), title: t("nav.new") }, icon("compose")));
    const userButton = h("button.user", { type: "button", "aria-haspopup": "menu", "aria-expanded": "false", "aria-label": t("nav.account", { name: user.name ?? user.id }), onclick: () => this.#userMenu(userButton) },
      h("span.avatar", { "aria-hidden": "true", "data-letter": [...(user.name ?? user.id)][0].toUpperCase() }), h("span.user-name", {}, user.name ?? user.id), icon("more"));
    this.side = h("nav.side", { id: "side", "aria-label": t("nav.conversations") },
      h("div.side-head", {},
        h("a.wordmark", { href: "/", "aria-label": "Stenograph" }, icon("mark"), h("span", {}, "Stenograph")),
        iconButton("close", t("nav.close"), () => this.open(false), { class: "only-narrow" })),
      h("a.button.secondary.wide.new-chat", { href: "/", "aria-keyshortcuts": "Control+Shift+O" }, icon("compose"), t("nav.new")),
      this.list.element,
      userButton);
    this.veil = h("div.veil", { onclick: () => this.open(false) });
    this.element = h("div.shell", {}, h("a.skip-link", { href: "#main", onclick: (event) => { event.preventDefault(); this.main.focus(); } }, t("nav.skip")), this.side, this.veil, h("div.content", {}, bar, this.main));
    this.keys = (event) => this.#key(event);
    addEventListener("keydown", this.keys);
    this.onAddress = () => this.located();
    addEventListener("addresschange", this.onAddress);
    this.onNarrow = () => this.open(false);
    narrow.addEventListener("change", this.onNarrow);
    this.open(false);
  }

  /** Shows a page: `{element, title, leave, focus}`. */
  show(page) {
    this.page?.leave?.();
    this.page = page;
    fill(this.main, page.element);
    this.#retitle(page.title);
    page.onTitle = (title) => this.#retitle(title);
    this.open(false);
    this.located();
    page.shown?.();
  }

  /** Instead of a page that is not there yet. */
  wait(element) {
    this.page?.leave?.();
    this.page = null;
    fill(this.main, element);
  }

  #retitle(title) {
    document.title = title ? `${title} · Stenograph` : "Stenograph";
    fill(this.title, title || "Stenograph");
  }

  /** The address has changed. */
  located() {
    this.list.located();
  }

  /** Opens or closes the drawer, where the side is one. */
  open(open) {
    const wasOpen = this.element.classList.contains("side-open");
    this.element.classList.toggle("side-open", open);
    this.opener.setAttribute("aria-expanded", String(open));
    // What cannot be seen cannot be reached either.
    this.side.inert = narrow.matches && !open;
    if (open) this.side.querySelector("a, button, input")?.focus();
    else if (wasOpen && narrow.matches) this.opener.focus();
  }

  leave() {
    this.page?.leave?.();
    this.list.leave();
    removeEventListener("keydown", this.keys);
    removeEventListener("addresschange", this.onAddress);
    narrow.removeEventListener("change", this.onNarrow);
  }

  #userMenu(button) {
    menu(button, [
      user.name ?? user.id,
      { label: t("nav.settings"), icon: "settings", run: () => go("/settings") },
      user.role === "admin" ? { label: t("nav.admin"), icon: "admin", run: () => go("/admin") } : undefined,
      null,
      ...languages.map(([tag, name]) => ({ label: name, icon: "language", checked: tag === language(), run: () => { setLanguage(tag); showAnew(); } })),
      null,
      { label: t("theme.is", { theme: t(`theme.${theme()}`) }), icon: "theme", run: () => { nextTheme(); } },
      { label: t("nav.logout"), icon: "leave", run: () => leaveSession() },
    ].filter((item) => item !== undefined));
  }

  #key(event) {
    if (!(event.ctrlKey || event.metaKey) || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key === "k" && !event.shiftKey) {
      this.open(true);
      this.list.focusSearch();
    } else if (key === "o" && event.shiftKey) {
      go("/");
    } else {
      return;
    }
    event.preventDefault();
  }
}

async function leaveSession() {
  try {
    await logout();
    await loggedOut();
  } catch (error) {
    toast(error.message);
  }
}
