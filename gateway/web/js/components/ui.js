// What pages share: notices that pass, dialogs, menus, copying, and words for screen readers.

import { fill, h, icon } from "../dom.js";
import { t } from "../i18n.js";

/** Says something to screen readers. */
export function announce(words) {
  const place = document.getElementById("announcer");
  // The same words twice are said twice only if they were gone between.
  place.textContent = "";
  setTimeout(() => { place.textContent = words; }, 50);
}

/** A notice that goes by itself. */
export function toast(words) {
  let place = document.querySelector(".toasts");
  if (!place) document.body.append(place = h("div.toasts", { role: "status" }));
  const note = h("div.toast", {}, words);
  place.append(note);
  while (place.children.length > 3) place.firstChild.remove();
  setTimeout(() => note.remove(), 5000);
}

/** A notice that stays: `kind` is `info`, `warn` or `bad`. */
export function notice(kind, ...children) {
  return h("div.notice", { class: kind, role: kind === "bad" ? "alert" : null }, icon(kind === "info" ? "info" : "warning"), h("div", {}, ...children));
}

/** Copies a text, and shows on the button that it is done. */
export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    if (!copyByHand(text)) return toast(t("copy.failed"));
  }
  announce(t("copy.done"));
  if (!button?.isConnected) return;
  const before = [...button.childNodes];
  if (button.dataset.copied) return;
  button.dataset.copied = "1";
  fill(button, icon("check"));
  setTimeout(() => {
    delete button.dataset.copied;
    fill(button, ...before);
  }, 1500);
}

/** Where the page is not served over https the clipboard is not to be had; the old way still works. */
function copyByHand(text) {
  const field = h("textarea.visually-hidden", { value: text, "aria-hidden": "true" });
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}

let dialogs = 0;

/**
 * A question that holds everything else up. `fields` come between words and buttons. Resolves with the form's data, or null
 * if the reader thought better of it. `submit` may refuse by throwing; its message is shown.
 */
export function ask({ title, words, fields = [], action, kind = "primary", submit }) {
  return new Promise((resolve) => {
    const id = `dialog-${++dialogs}`;
    const problem = h("div", {});
    const go = h("button.button", { class: kind, type: "submit" }, action);
    const form = h("form", { method: "dialog", onsubmit: send },
      h("h2", { id }, title), words ? h("p", {}, words) : null, ...fields, problem,
      h("div.actions", {}, h("button.button.secondary", { type: "button", onclick: () => dialog.close() }, t("cancel")), go));
    const dialog = h("dialog.dialog", { "aria-labelledby": id, onclose: done }, form);
    let answer = null;

    async function send(event) {
      event.preventDefault();
      const data = new FormData(form);
      go.disabled = true;
      try {
        await submit?.(data);
        answer = data;
        dialog.close();
      } catch (error) {
        fill(problem, notice("bad", error.message));
      }
      go.disabled = false;
    }
    function done() {
      dialog.remove();
      resolve(answer);
    }

    document.body.append(dialog);
    dialog.showModal();
    (form.querySelector("input, select") ?? go).focus();
    form.querySelector("input")?.select?.();
  });
}

/**
 * A menu under (or over) a button. Items: `{label, icon, run, danger, checked}`, `null` for a line, a text for a caption.
 * Arrow keys, Home, End and Escape do what they do in menus.
 */
export function menu(button, items) {
  if (button.getAttribute("aria-expanded") === "true") return close();
  const entries = items.map((item) => {
    if (item === null) return h("hr", {});
    if (typeof item === "string") return h("div.caption", { role: "presentation" }, item);
    const role = item.checked === undefined ? "menuitem" : "menuitemradio";
    const checked = item.checked === undefined ? null : String(item.checked);
    return h("button", { type: "button", role, tabindex: "-1", class: item.danger ? "danger" : "", "aria-checked": checked, onclick: () => { close(); item.run(); } },
      item.icon ? icon(item.icon) : null, h("span", {}, item.label), item.checked ? h("span.check", { "aria-hidden": "true" }, "✓") : null);
  });
  const list = h("div.menu", { role: "menu", "aria-label": button.getAttribute("aria-label") ?? button.textContent, popover: "auto", onkeydown: move, ontoggle: toggled }, ...entries);
  document.body.append(list);
  list.showPopover();
  place(list, button);
  button.setAttribute("aria-expanded", "true");
  const choices = [...list.querySelectorAll("[role^=menuitem]")];
  choices[0]?.focus();

  function close() {
    document.querySelector(".menu")?.hidePopover();
  }
  function toggled(event) {
    if (event.newState !== "closed") return;
    button.setAttribute("aria-expanded", "false");
    if (list.contains(document.activeElement) || document.activeElement === document.body) button.focus();
    list.remove();
  }
  function move(event) {
    const at = choices.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1 + choices.length, Home: 0, End: choices.length - 1 }[event.key];
    if (event.key === "Tab") close();
    if (to === undefined) return;
    event.preventDefault();
    choices[to % choices.length].focus();
  }
}

function place(list, button) {
  const at = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = list;
  const left = Math.min(Math.max(8, at.left), innerWidth - width - 8);
  const below = at.bottom + 6;
  const top = below + height > innerHeight - 8 ? Math.max(8, at.top - height - 6) : below;
  list.style.setProperty("left", `${left}px`);
  list.style.setProperty("top", `${top}px`);
}

/** A field with its label: `more` are attributes of the input. */
export function field(name, label, more = {}) {
  const { hint, input, ...attributes } = more;
  const id = `field-${name}-${++dialogs}`;
  const box = input ?? h("input.input", { name, ...attributes });
  box.id = id;
  if (hint) box.setAttribute("aria-describedby", `${id}-hint`);
  return h("div.field", {}, h("label", { for: id }, label), box, hint ? h("span.hint", { id: `${id}-hint` }, hint) : null);
}

/** A field for a password, which can be shown. */
export function passwordField(name, label, more = {}) {
  const whole = field(name, label, { type: "password", required: true, maxlength: 1024, ...more });
  const box = whole.querySelector("input");
  const eye = h("button.icon-button", { type: "button", "aria-label": t("password.show"), title: t("password.show"), "aria-pressed": "false", onclick: show }, icon("eye"));
  function show() {
    const shown = box.type === "password";
    box.type = shown ? "text" : "password";
    eye.setAttribute("aria-pressed", String(shown));
  }
  const frame = h("div.password", {});
  box.replaceWith(frame);
  frame.append(box, eye);
  return whole;
}

/** A choice between a few, as buttons side by side. */
export function segmented(label, choices, chosen, onchoose) {
  const group = h("div.segmented", { role: "group", "aria-label": label });
  for (const [value, words] of choices) {
    group.append(h("button", { type: "button", "aria-pressed": String(value === chosen), onclick: (event) => {
      for (const other of group.children) other.setAttribute("aria-pressed", String(other === event.currentTarget));
      onchoose(value);
    } }, words));
  }
  return group;
}

/** While something is fetched. */
export const loading = () => h("div.loading", { role: "status" }, h("span.spinner", {}), h("span.visually-hidden", {}, t("loading")));
