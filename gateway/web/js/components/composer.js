// The composer: the field for a question, the choice of the model, and the buttons that send and stop.

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
    // On a touch screen, focus would open the keyboard unasked.
    if (!matchMedia("(pointer: coarse)").matches) this.textarea.focus();
    this.#resize();
  }

  destroy() {
    clearTimeout(this.retryTimer);
  }

  /** Loads the list of models; after a failure, tries again in 10 seconds. */
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

  /** Selects the model of the conversation, if the model is available and the user has not selected another. */
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

  /** Removes the stored draft: the question has been accepted. */
  clearDraft() {
    tabStorage.remove("draft");
  }

  /** Puts a refused question back into the field, to be sent again. */
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
    // Enter that confirms the composition of an input method must not send.
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
