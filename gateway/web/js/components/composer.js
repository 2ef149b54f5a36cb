// Where questions are written, and the model is chosen.

import { getJson } from "../api.js";
import { h, icon } from "../dom.js";
import { t } from "../i18n.js";
import { preferences, tabStorage } from "../storage.js";

export class Composer {
  constructor({ send, stop }) {
    this.busy = false;
    this.enabled = true;
    this.onSend = send;
    this.textarea = h("textarea", { rows: "1", placeholder: t("composer.placeholder"), "aria-label": t("composer.label"), "aria-keyshortcuts": "Enter", oninput: () => this.#resize(), onkeydown: (event) => this.#handleKey(event), value: tabStorage.get("draft") ?? "" });
    this.modelSelect = h("select", { "aria-label": t("composer.model"), onchange: () => { this.isModelChosen = true; preferences.set("model", this.modelSelect.value); this.#updateControls(); } });
    this.sendButton = h("button.send", { type: "submit", "aria-label": t("composer.send"), title: t("composer.send") }, icon("send"));
    this.stopButton = h("button.send.stop", { type: "button", "aria-label": t("composer.stop"), title: t("composer.stop"), hidden: true, onclick: stop }, icon("stop"));
    this.element = h("form.composer", { onsubmit: (event) => { event.preventDefault(); this.#send(); } },
      h("div.composer-box", { onclick: (event) => event.target.tagName === "DIV" && this.textarea.focus() }, this.textarea, h("div.composer-footer", {}, h("div.model", {}, this.modelSelect, icon("down")), this.sendButton, this.stopButton)),
      h("p.composer-hint", {}, t("composer.hint")));
    this.loadModels();
  }

  get model() {
    return this.modelSelect.value;
  }

  focus() {
    // On a touch screen that would bring up the keyboard unasked.
    if (!matchMedia("(pointer: coarse)").matches) this.textarea.focus();
    this.#resize();
  }

  destroy() {
    clearTimeout(this.retryTimer);
  }

  /** What models there are. */
  async loadModels() {
    let names = [];
    try {
      const list = await getJson("/v1/models");
      names = (list?.data ?? []).map((model) => model?.id).filter((id) => typeof id === "string");
    } catch {
      this.retryTimer = setTimeout(() => this.loadModels(), 10_000);
    }
    const lastModel = preferences.get("model");
    if (names.length === 0 && lastModel) names = [lastModel];
    this.modelSelect.replaceChildren(...names.slice(0, 1000).map((name) => h("option", { value: name }, name)));
    this.selectModel(this.preferredModel ?? lastModel);
  }

  /** Chooses the model that the conversation has used, if it is there and the reader has not chosen. */
  selectModel(model) {
    this.preferredModel = model;
    if (!this.isModelChosen && [...this.modelSelect.options].some((option) => option.value === model)) this.modelSelect.value = model;
    this.#updateControls();
  }

  setBusy(busy) {
    this.busy = busy;
    this.stopButton.hidden = !busy;
    this.sendButton.hidden = busy;
    this.#updateControls();
    if (busy && document.activeElement === document.body) this.textarea.focus();
  }

  setEnabled(enabled) {
    this.enabled = enabled;
    this.textarea.disabled = !enabled;
    this.#updateControls();
  }

  /** The question has been taken. */
  clearDraft() {
    tabStorage.remove("draft");
  }

  /** The question has not been taken: it is there to be sent again. */
  restoreText(text) {
    if (!this.textarea.value) this.textarea.value = text;
    this.#resize();
    this.textarea.focus();
  }

  #send() {
    const text = this.textarea.value.trim();
    if (!text || this.busy || !this.enabled || !this.model) return;
    this.textarea.value = "";
    this.#resize();
    tabStorage.set("draft", text);
    this.onSend(text);
  }

  #handleKey(event) {
    // Enter that ends the composition of a word is not meant for us.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    this.#send();
  }

  #resize() {
    this.textarea.style.setProperty("height", "auto");
    this.textarea.style.setProperty("height", `${this.textarea.scrollHeight}px`);
    if (!this.busy) tabStorage.set("draft", this.textarea.value.slice(0, 100_000));
    this.#updateControls();
  }

  #updateControls() {
    this.sendButton.disabled = !this.enabled || !this.model || !this.textarea.value.trim();
    this.modelSelect.disabled = this.modelSelect.options.length === 0;
  }
}
