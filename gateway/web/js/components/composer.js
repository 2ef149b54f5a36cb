// The composer: the field for a question, the choice of the model, and the buttons that send and stop.

import { getJson } from "../api.js";
import { h, icon } from "../dom.js";
import { t } from "../i18n.js";
import { preferences, tabStorage } from "../storage.js";

/** The maximum number of drafts that are stored, and of characters of each. */
const MAX_DRAFTS = 20;
const MAX_DRAFT_CHARACTERS = 100_000;
/** The key of the draft of a conversation that does not exist yet. */
const NEW_CONVERSATION = "new";

function drafts() {
  try { return JSON.parse(tabStorage.get("drafts")) ?? {}; } catch { return {}; }
}

export class Composer {
  constructor({ conversationId, send, stop }) {
    this.draftKey = conversationId ?? NEW_CONVERSATION;
    /** A question that was sent and is not accepted yet. */
    this.sentText = "";
    this.busy = false;
    this.enabled = true;
    this.onSend = send;
    this.textarea = h("textarea", { rows: "1", dir: "auto", placeholder: t("composer.placeholder"), "aria-label": t("composer.label"), "aria-keyshortcuts": "Enter", oninput: () => this.#resize(), onkeydown: (event) => this.#handleKey(event), value: drafts()[this.draftKey] ?? "" });
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

  /** Disables sending while earlier messages are loaded. */
  setWaiting(waiting) {
    this.waiting = waiting;
    this.sendButton.classList.toggle("waiting", waiting);
    this.#updateControls();
  }

  setEnabled(enabled) {
    this.enabled = enabled;
    this.textarea.disabled = !enabled;
    this.#updateControls();
  }

  /** Forgets the sent question, which has been accepted, and stores further drafts for this conversation. */
  accept(conversationId) {
    this.sentText = "";
    if (conversationId && this.draftKey === NEW_CONVERSATION) {
      this.#storeDraft("");
      this.draftKey = conversationId;
    }
    this.#storeDraft(this.textarea.value);
  }

  /** Empties the field if it has this text, which is being sent. */
  clearText(text) {
    if (this.textarea.value.trim() !== text) return;
    this.textarea.value = "";
    this.sentText = text;
    this.#resize();
  }

  /** Puts a refused question back into the field, to be sent again. */
  restoreText(text) {
    this.sentText = "";
    if (!this.textarea.value) this.textarea.value = text;
    this.#resize();
    this.textarea.focus();
  }

  #send() {
    const text = this.textarea.value.trim();
    if (!text || this.busy || this.waiting || !this.enabled || !this.model) return;
    this.textarea.value = "";
    this.sentText = text;
    this.#resize();
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
    this.#storeDraft(this.textarea.value || this.sentText);
    this.#updateControls();
  }

  /** Stores the text of the field in the tab, so that the text survives a reload and a look at another page. */
  #storeDraft(text) {
    const all = drafts();
    if ((all[this.draftKey] ?? "") === text) return;
    delete all[this.draftKey];
    if (text) all[this.draftKey] = text.slice(0, MAX_DRAFT_CHARACTERS);
    for (const old of Object.keys(all).slice(0, -MAX_DRAFTS)) delete all[old];
    tabStorage.set("drafts", JSON.stringify(all));
  }

  #updateControls() {
    this.sendButton.disabled = !this.enabled || this.waiting || !this.model || !this.textarea.value.trim();
    this.modelSelect.disabled = this.modelSelect.options.length === 0;
  }
}
