// Where questions are written, and the model is chosen.

import { get } from "../api.js";
import { h, icon } from "../dom.js";
import { t } from "../i18n.js";
import { preferences, tab } from "../storage.js";

export class Composer {
  constructor({ send, stop }) {
    this.busy = false;
    this.enabled = true;
    this.onSend = send;
    this.field = h("textarea", { rows: "1", placeholder: t("composer.placeholder"), "aria-label": t("composer.label"), "aria-keyshortcuts": "Enter", oninput: () => this.#grown(), onkeydown: (event) => this.#key(event), value: tab.get("draft") ?? "" });
    this.select = h("select", { "aria-label": t("composer.model"), onchange: () => { this.isChosen = true; preferences.set("model", this.select.value); this.#update(); } });
    this.sendButton = h("button.send", { type: "submit", "aria-label": t("composer.send"), title: t("composer.send") }, icon("send"));
    this.stopButton = h("button.send.stop", { type: "button", "aria-label": t("composer.stop"), title: t("composer.stop"), hidden: true, onclick: stop }, icon("stop"));
    this.element = h("form.composer", { onsubmit: (event) => { event.preventDefault(); this.#send(); } },
      h("div.composer-box", { onclick: (event) => event.target.tagName === "DIV" && this.field.focus() }, this.field, h("div.composer-foot", {}, h("div.model", {}, this.select, icon("down")), this.sendButton, this.stopButton)),
      h("p.composer-hint", {}, t("composer.hint")));
    this.models();
  }

  get model() {
    return this.select.value;
  }

  focus() {
    // On a touch screen that would bring up the keyboard unasked.
    if (!matchMedia("(pointer: coarse)").matches) this.field.focus();
    this.#grown();
  }

  leave() {
    clearTimeout(this.timer);
  }

  /** What models there are. */
  async models() {
    let names = [];
    try {
      const list = await get("/v1/models");
      names = (list?.data ?? []).map((model) => model?.id).filter((id) => typeof id === "string");
    } catch {
      this.timer = setTimeout(() => this.models(), 10_000);
    }
    const last = preferences.get("model");
    if (names.length === 0 && last) names = [last];
    this.select.replaceChildren(...names.slice(0, 1000).map((name) => h("option", { value: name }, name)));
    this.choose(this.wanted ?? last);
  }

  /** Chooses the model that the conversation has used, if it is there and the reader has not chosen. */
  choose(model) {
    this.wanted = model;
    if (!this.isChosen && [...this.select.options].some((option) => option.value === model)) this.select.value = model;
    this.#update();
  }

  setBusy(busy) {
    this.busy = busy;
    this.stopButton.hidden = !busy;
    this.sendButton.hidden = busy;
    this.#update();
    if (busy && document.activeElement === document.body) this.field.focus();
  }

  setEnabled(enabled) {
    this.enabled = enabled;
    this.field.disabled = !enabled;
    this.#update();
  }

  /** The question has been taken. */
  accepted() {
    tab.remove("draft");
  }

  /** The question has not been taken: it is there to be sent again. */
  restore(text) {
    if (!this.field.value) this.field.value = text;
    this.#grown();
    this.field.focus();
  }

  #send() {
    const text = this.field.value.trim();
    if (!text || this.busy || !this.enabled || !this.model) return;
    this.field.value = "";
    this.#grown();
    tab.set("draft", text);
    this.onSend(text);
  }

  #key(event) {
    // Enter that ends the composition of a word is not meant for us.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    this.#send();
  }

  #grown() {
    this.field.style.setProperty("height", "auto");
    this.field.style.setProperty("height", `${this.field.scrollHeight}px`);
    if (!this.busy) tab.set("draft", this.field.value.slice(0, 100_000));
    this.#update();
  }

  #update() {
    this.sendButton.disabled = !this.enabled || !this.model || !this.field.value.trim();
    this.select.disabled = this.select.options.length === 0;
  }
}
