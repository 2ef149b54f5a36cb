// The view of one turn. Unchanged parts are not drawn again, so that text selections and the focus are kept.

import { callPath } from "../address.js";
import { h, icon, iconButton, replaceChildren } from "../dom.js";
import { formatDateTime, formatSeconds, t } from "../i18n.js";
import { earlyEnd } from "../turns.js";
import { Prose } from "./prose.js";
import { copyText } from "./ui.js";

/** The time between two renderings of an answer that is being streamed. */
const DRAW_INTERVAL_MS = 60;

export class TurnView {
  constructor() {
    this.question = h("div.question", {});
    this.previousAnswers = h("div.previous-answers", {});
    this.reasoning = h("details.reasoning", { hidden: true }, h("summary", {}), h("div.plain-text", { dir: "auto" }));
    this.prose = new Prose();
    this.text = this.prose.element;
    this.status = h("div.answer-status", {});
    this.actions = h("div.turn-actions", {});
    this.answer = h("article.answer", { "aria-label": t("answer.label") }, this.previousAnswers, this.reasoning, this.text, this.status, this.actions);
    this.element = h("section.turn", {}, this.question, this.answer);
  }

  show(turn, { retry }) {
    const { answer } = turn;
    this.#drawIfChanged("question", [turn.question, turn.role, turn.isKept], () => this.#drawQuestion(turn));
    this.#drawIfChanged("previousAnswers", turn.previousAnswers, () => replaceChildren(this.previousAnswers, turn.previousAnswers.map(previousAnswer)));
    this.#drawIfChanged("reasoning", [answer.reasoning, answer.status, answer.text === ""], () => this.#drawReasoning(answer));
    this.#drawText(answer);
    this.#drawIfChanged("status", [answer.status, answer.error?.message, answer.toolCalls, answer.stopped, answer.finishReason, answer.text === "", answer.isKept, Boolean(retry)], () => replaceChildren(this.status, statusElements(answer, retry)));
    const isDone = answer.status !== "streaming" && answer.status !== "waiting";
    this.#drawIfChanged("actions", [isDone, answer.text.length, answer.chatId, answer.isRecorded, answer.model, answer.tokens, turn.createdAt], () => replaceChildren(this.actions, isDone ? answerActions(turn) : null));
    this.element.dataset.status = answer.status;
    this.element.dataset.chat = answer.chatId ?? "";
    this.answer.setAttribute("aria-busy", String(!isDone));
  }

  #drawIfChanged(name, signature, draw) {
    const text = JSON.stringify(signature);
    this.drawn ??= {};
    if (this.drawn[name] === text) return;
    this.drawn[name] = text;
    draw();
  }

  #drawQuestion(turn) {
    if (turn.isKept === false) return replaceChildren(this.question, h("p.note.not-kept", {}, icon("info"), t("turn.notKept")));
    if (turn.question === null) return replaceChildren(this.question);
    if (turn.role !== "user") {
      return replaceChildren(this.question, h("details.tool", {}, h("summary", {}, t("turn.role", { role: turn.role })), h("div.plain-text", { dir: "auto" }, turn.question)));
    }
    return replaceChildren(this.question, h("div.bubble", {}, h("span.visually-hidden", {}, t("turn.you")), h("div.plain-text", { dir: "auto" }, turn.question)),
      h("div.turn-actions", {}, iconButton("copy", t("turn.copy"), (event) => copyText(turn.question, event.currentTarget), { small: true })));
  }

  #drawReasoning(answer) {
    this.reasoning.hidden = !answer.reasoning;
    this.reasoning.firstChild.textContent = t(answer.status === "streaming" && !answer.text ? "answer.thinking" : "answer.reasoning");
    this.reasoning.lastChild.textContent = answer.reasoning;
  }

  /** Renders the answer, at most once in an interval while the answer is being streamed. */
  #drawText(answer) {
    this.latest = answer;
    if (answer.status !== "streaming") {
      clearTimeout(this.drawTimer);
      this.drawTimer = null;
      this.#draw();
    } else {
      this.drawTimer ??= setTimeout(() => {
        this.drawTimer = null;
        this.#draw();
      }, DRAW_INTERVAL_MS);
    }
  }

  #draw() {
    const { text, status } = this.latest;
    this.text.classList.toggle("streaming", status === "streaming");
    this.prose.show(text);
  }
}

function statusElements(answer, retry) {
  const retryButton = retry && (["failed", "partial", "truncated"].includes(answer.status) || earlyEnd(answer.finishReason)) ? h("button.button.secondary.small.retry", { type: "button", onclick: retry }, icon("retry"), t("retry")) : null;
  const calls = answer.toolCalls.map((call) => h("details.tool", {}, h("summary", {}, t("answer.tool", { name: call.name })), h("pre.plain-text", { tabindex: "0" }, call.arguments ?? "")));
  return [calls, ...statusNotes(answer), retryButton];
}

function statusNotes(answer) {
  const notes = endNotes(answer);
  return answer.isKept === false ? [h("p.note.not-kept", {}, icon("info"), t("answer.notKept")), ...notes] : notes;
}

function endNotes(answer) {
  const error = answer.error?.message;
  switch (answer.status) {
    case "streaming": return answer.text ? [] : [h("span.typing-indicator", {}, h("i", {}), h("i", {}), h("i", {}), h("span.visually-hidden", {}, t("answer.started")))];
    case "waiting": return [h("p.note.waiting", { role: "status" }, h("span.spinner", {}), t(answer.text ? "answer.waitingPartial" : "answer.waiting"))];
    case "partial": return [h("p.note.warn", {}, icon("warning"), h("span", {}, answer.stopped || ["client_gone", "stopped_by_user"].includes(answer.finishReason) ? t("answer.stoppedNote") : t(answer.finishReason === "cut_by_budget" ? "answer.budgetNote" : "answer.partialNote"), error ? h("span.error-message", {}, error) : null))];
    case "truncated": return [h("p.note", {}, icon("info"), t("answer.truncatedNote"))];
    case "failed": return [h("p.note.bad", {}, icon("warning"), h("span", {}, t("answer.failedNote"), error ? h("span.error-message", {}, error) : null))];
    default: {
      const cause = earlyEnd(answer.finishReason);
      if (cause) return [h("p.note.warn", {}, icon("warning"), t(`answer.earlyEnd.${cause}`))];
      return answer.text || answer.toolCalls.length || answer.isKept === false ? [] : [h("p.note", {}, icon("info"), t("answer.emptyNote"))];
    }
  }
}

function answerActions({ answer, createdAt }) {
  const details = [
    answer.model,
    answer.tokens === null || answer.tokens === undefined ? null : t(answer.estimated ? "answer.tokensEstimated" : "answer.tokens", { n: answer.tokens }),
    answer.durationMs ? formatSeconds(answer.durationMs) : null,
  ].filter(Boolean);
  const copy = iconButton("copy", t("answer.copy"), (event) => copyText(answer.text, event.currentTarget), { small: true });
  return [
    answer.text ? [copy, h("span.answer-details", { title: createdAt ? formatDateTime(createdAt) : null }, details.join(" · "))] : null,
    answer.isRecorded ? h("a.answer-details", { href: callPath(answer.chatId) }, t("answer.call")) : null,
  ];
}

function proseOf(text) {
  const prose = new Prose();
  prose.show(text);
  return prose.element;
}

function previousAnswer(answer) {
  return h("details.tool", {}, h("summary", {}, t(`answer.previous.${answer.status === "failed" ? "failed" : "partial"}`)), answer.text ? proseOf(answer.text) : null, answer.error?.message ? h("p.error-message", {}, answer.error.message) : null,
    answer.isRecorded ? h("p", {}, h("a.answer-details", { href: callPath(answer.chatId) }, t("answer.call"))) : null);
}
