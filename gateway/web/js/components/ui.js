// Interface elements that pages share: toasts, notices, dialogs, menus, fields, copying, and announcements.

import { h, icon, replaceChildren } from "../dom.js";
import { t } from "../i18n.js";

/** Announces a text to screen readers. */
export function announce(text) {
  const region = document.getElementById("announcer");
  // Screen readers repeat the same text only if the region was empty in between.
  region.textContent = "";
  setTimeout(() => { region.textContent = text; }, 50);
}

/** Shows a short message for 5 seconds; at most three at a time. */
export function toast(text) {
  let region = document.querySelector(".toasts");
  if (!region) document.body.append(region = h("div.toasts", { role: "status" }));
  const element = h("div.toast", {}, text);
  region.append(element);
  while (region.children.length > 3) region.firstChild.remove();
  setTimeout(() => element.remove(), 5000);
}

/** A notice within the page; `kind` is `info`, `warn` or `bad`. */
export function notice(kind, ...children) {
  return h("div.notice", { class: kind, role: kind === "bad" ? "alert" : null }, icon(kind === "info" ? "info" : "warning"), h("div", {}, ...children));
}

/** Copies a text to the clipboard, and shows a check mark on the button for 1.5 seconds. */
export async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    if (!copyWithExecCommand(text)) return toast(t("copy.failed"));
  }
  announce(t("copy.done"));
  if (!button?.isConnected) return;
  const before = [...button.childNodes];
  if (button.dataset.copied) return;
  button.dataset.copied = "1";
  replaceChildren(button, icon("check"));
  setTimeout(() => {
    delete button.dataset.copied;
    replaceChildren(button, ...before);
  }, 1500);
}

/** Copies a text without the clipboard API, which browsers offer over HTTPS only. */
function copyWithExecCommand(text) {
  const field = h("textarea.visually-hidden", { value: text, "aria-hidden": "true" });
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}

let nextId = 0;

/**
 * Opens a modal dialog. `fields` stand between the text and the buttons. Resolves with the form data, or with null if the
 * dialog was cancelled. If `submit` throws, the error message is shown and the dialog stays open. A dialog without a
 * `cancelLabel` has one button; `size` is a class of the dialog.
 */
export function openDialog({ title, text, fields = [], submitLabel, cancelLabel = t("cancel"), kind = "primary", size = "", submit }) {
  return new Promise((resolve) => {
    const id = `dialog-${++nextId}`;
    const errorArea = h("div", {});
    const submitButton = h("button.button", { class: kind, type: "submit" }, submitLabel);
    const cancelButton = cancelLabel === null ? null : h("button.button.secondary", { type: "button", onclick: () => dialog.close() }, cancelLabel);
    const form = h("form", { method: "dialog", onsubmit: send },
      h("h2", { id }, title), text ? h("p", {}, text) : null, ...fields, errorArea,
      h("div.actions", {}, cancelButton, submitButton));
    const dialog = h("dialog.dialog", { class: size, "aria-labelledby": id, onclose: done }, form);
    let result = null;

    async function send(event) {
      event.preventDefault();
      const data = new FormData(form);
      submitButton.disabled = true;
      try {
        await submit?.(data);
        result = data;
        dialog.close();
      } catch (error) {
        replaceChildren(errorArea, notice("bad", error.message));
      }
      submitButton.disabled = false;
    }
    function done() {
      dialog.remove();
      resolve(result);
    }

    document.body.append(dialog);
    dialog.showModal();
    // Enter alone must not delete anything.
    (form.querySelector("[autofocus]") ?? form.querySelector("input, select") ?? (kind === "danger" ? cancelButton : submitButton)).focus();
    form.querySelector("input:not([type=checkbox])")?.select?.();
  });
}

/**
 * Opens a menu below a button, or above where space is missing. Items: `{label, icon, onSelect, danger, checked}`, `null`
 * for a separator, a string for a caption. Arrow keys, Home, End and Escape work as in native menus.
 */
export function menu(button, items) {
  if (button.getAttribute("aria-expanded") === "true") return close();
  const entries = items.map((item) => {
    if (item === null) return h("hr", {});
    if (typeof item === "string") return h("div.caption", { role: "presentation" }, item);
    const role = item.checked === undefined ? "menuitem" : "menuitemradio";
    const checked = item.checked === undefined ? null : String(item.checked);
    return h("button", { type: "button", role, tabindex: "-1", class: item.danger ? "danger" : "", "aria-checked": checked, onclick: () => { close(); item.onSelect(); } },
      item.icon ? icon(item.icon) : null, h("span", {}, item.label), item.checked ? h("span.check", { "aria-hidden": "true" }, "✓") : null);
  });
  const list = h("div.menu", { role: "menu", "aria-label": button.getAttribute("aria-label") ?? button.textContent, popover: "auto", onkeydown: onKeyDown, ontoggle: onToggle }, ...entries);
  document.body.append(list);
  list.showPopover();
  positionMenu(list, button);
  button.setAttribute("aria-expanded", "true");
  const menuItems = [...list.querySelectorAll("[role^=menuitem]")];
  menuItems[0]?.focus();

  function close() {
    document.querySelector(".menu")?.hidePopover();
  }
  function onToggle(event) {
    if (event.newState !== "closed") return;
    button.setAttribute("aria-expanded", "false");
    if (list.contains(document.activeElement) || document.activeElement === document.body) button.focus();
    list.remove();
  }
  function onKeyDown(event) {
    const current = menuItems.indexOf(document.activeElement);
    const target = { ArrowDown: current + 1, ArrowUp: current - 1 + menuItems.length, Home: 0, End: menuItems.length - 1 }[event.key];
    if (event.key === "Tab") close();
    if (target === undefined) return;
    event.preventDefault();
    menuItems[target % menuItems.length].focus();
  }
}

function positionMenu(list, button) {
  const anchor = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = list;
  const left = Math.min(Math.max(8, anchor.left), innerWidth - width - 8);
  const below = anchor.bottom + 6;
  const top = below + height > innerHeight - 8 ? Math.max(8, anchor.top - height - 6) : below;
  list.style.setProperty("left", `${left}px`);
  list.style.setProperty("top", `${top}px`);
}

/** A form field with a label. `options` are attributes of the input; `hint` is a help text, `input` replaces the input. */
export function field(name, label, options = {}) {
  const { hint, input, ...attributes } = options;
  const id = `field-${name}-${++nextId}`;
  const control = input ?? h("input.input", { name, ...attributes });
  control.id = id;
  if (hint) control.setAttribute("aria-describedby", `${id}-hint`);
  return h("div.field", {}, h("label", { for: id }, label), control, hint ? h("span.hint", { id: `${id}-hint` }, hint) : null);
}

/** A password field with a button that reveals the password. */
export function passwordField(name, label, options = {}) {
  const wrapper = field(name, label, { type: "password", required: true, maxlength: 1024, ...options });
  const control = wrapper.querySelector("input");
  const revealButton = h("button.icon-button", { type: "button", "aria-label": t("password.show"), title: t("password.show"), "aria-pressed": "false", onclick: show }, icon("eye"));
  function show() {
    const shown = control.type === "password";
    control.type = shown ? "text" : "password";
    revealButton.setAttribute("aria-pressed", String(shown));
  }
  const container = h("div.password", {});
  control.replaceWith(container);
  container.append(control, revealButton);
  return wrapper;
}

/** A row of buttons of which one is selected; `choices` are pairs of value and label. */
export function segmentedControl(groupLabel, choices, chosen, onchoose) {
  const group = h("div.segmented", { role: "group", "aria-label": groupLabel });
  for (const [value, label] of choices) {
    group.append(h("button", { type: "button", "aria-pressed": String(value === chosen), onclick: (event) => {
      for (const other of group.children) other.setAttribute("aria-pressed", String(other === event.currentTarget));
      onchoose(value);
    } }, label));
  }
  return group;
}

/** Links between the parts of a page; `links` are path, label, and true for the current part. */
export function tabs(label, links) {
  const element = h("nav.tabs", { "aria-label": label }, links.map(([href, text, isCurrent]) => h("a", { href, "aria-current": isCurrent ? "page" : null }, text)));
  // On a narrow screen the links scroll.
  requestAnimationFrame(() => element.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" }));
  return element;
}

/** A spinner for content that is being loaded. */
export const loadingIndicator = () => h("div.loading", { role: "status" }, h("span.spinner", {}), h("span.visually-hidden", {}, t("loading")));
