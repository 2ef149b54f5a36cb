// One turn on the page. What has not changed is not drawn again, so that selections and focus stay.

import { fill, h, icon, iconButton } from "../dom.js";
import { dateTime, seconds, t } from "../i18n.js";
import { render } from "./markdown.js";
import { copy } from "./ui.js";

/** The shortest time between two drawings of an answer that grows. */
const PACE = 60;

export class TurnView {
  constructor() {
    this.question = h("div.question", {});
    this.earlier = h("div.earlier", {});
    this.reasoning = h("details.reasoning", { hidden: true }, h("summary", {}), h("div.plain", {}));
    this.text = h("div.prose", {});
    this.state = h("div.state", {});
    this.actions = h("div.turn-actions", {});
    this.answer = h("article.answer", { "aria-label": t("answer.label") }, this.earlier, this.reasoning, this.text, this.state, this.actions);
    this.element = h("section.turn", {}, this.question, this.answer);
    this.cost = 0;
  }

  show(turn, { retry }) {
    const { answer } = turn;
    this.#once("question", [turn.asked, turn.role], () => this.#drawQuestion(turn));
    this.#once("earlier", turn.earlier, () => fill(this.earlier, turn.earlier.map(earlierAnswer)));
    this.#once("reasoning", [answer.reasoning, answer.status, answer.text === ""], () => this.#drawReasoning(answer));
    this.#drawText(answer);
    this.#once("state", [answer.status, answer.error?.message, answer.toolCalls, answer.stopped, answer.finishReason, answer.text === "", Boolean(retry)], () => fill(this.state, stateOf(answer, retry)));
    const isDone = answer.status !== "streaming" && answer.status !== "waiting";
    this.#once("actions", [isDone, answer.text, answer.model, answer.tokens, turn.at], () => fill(this.actions, isDone && answer.text ? actionsOf(turn) : null));
    this.element.dataset.status = answer.status;
    this.element.dataset.chat = answer.chatId ?? "";
    this.answer.setAttribute("aria-busy", String(!isDone));
  }

  #once(name, signature, draw) {
    const text = JSON.stringify(signature);
    this.drawn ??= {};
    if (this.drawn[name] === text) return;
    this.drawn[name] = text;
    draw();
  }

  #drawQuestion(turn) {
    if (turn.asked === null) return fill(this.question);
    if (turn.role !== "user") {
      return fill(this.question, h("details.tool", {}, h("summary", {}, t("turn.role", { role: turn.role })), h("div.plain", {}, turn.asked)));
    }
    return fill(this.question, h("div.bubble", {}, h("span.visually-hidden", {}, t("turn.you")), h("div.plain", {}, turn.asked)),
      h("div.turn-actions", {}, iconButton("copy", t("turn.copy"), (event) => copy(turn.asked, event.currentTarget), { small: true })));
  }

  #drawReasoning(answer) {
    this.reasoning.hidden = !answer.reasoning;
    this.reasoning.firstChild.textContent = t(answer.status === "streaming" && !answer.text ? "answer.thinking" : "answer.thought");
    this.reasoning.lastChild.textContent = answer.reasoning;
  }

  /** Markdown is read anew each time it grows: the longer that takes, the less often. */
  #drawText(answer) {
    this.latest = answer;
    if (answer.status !== "streaming") {
      clearTimeout(this.timer);
      this.timer = null;
      this.#draw();
    } else {
      this.timer ??= setTimeout(() => {
        this.timer = null;
        this.#draw();
      }, Math.max(PACE, this.cost * 4));
    }
  }

  #draw() {
    const { text, status } = this.latest;
    this.text.classList.toggle("growing", status === "streaming");
    this.#once("text", text, () => {
      const begun = performance.now();
      fill(this.text, text ? render(text) : null);
      this.cost = performance.now() - begun;
    });
    this.element.dispatchEvent(new Event("drawn", { bubbles: true }));
  }
}

function stateOf(answer, retry) {
  const again = retry && ["failed", "partial", "truncated"].includes(answer.status) ? h("button.button.secondary.small.retry", { type: "button", onclick: retry }, icon("retry"), t("answer.again")) : null;
  const calls = answer.toolCalls.map((call) => h("details.tool", {}, h("summary", {}, t("answer.tool", { name: call.name })), h("pre.plain", { tabindex: "0" }, call.arguments ?? "")));
  return [calls, ...words(answer), again];
}

function words(answer) {
  const error = answer.error?.message;
  switch (answer.status) {
    case "streaming": return answer.text ? [] : [h("span.writing", {}, h("i", {}), h("i", {}), h("i", {}), h("span.visually-hidden", {}, t("answer.begun")))];
    case "waiting": return [h("p.note.waiting", { role: "status" }, h("span.spinner", {}), t(answer.text ? "answer.waitingMore" : "answer.waiting"))];
    case "partial": return [h("p.note.warn", {}, icon("warning"), h("span", {}, answer.stopped || answer.finishReason === "client_gone" ? t("answer.stoppedNote") : t("answer.partialNote"), error ? h("span.reason", {}, error) : null))];
    case "truncated": return [h("p.note", {}, icon("info"), t("answer.truncatedNote"))];
    case "failed": return [h("p.note.bad", {}, icon("warning"), h("span", {}, t("answer.failedNote"), error ? h("span.reason", {}, error) : null))];
    default: return answer.text || answer.toolCalls.length ? [] : [h("p.note", {}, icon("info"), t("answer.emptyNote"))];
  }
}

function actionsOf({ answer, at }) {
  const facts = [
    answer.model,
    answer.tokens === null || answer.tokens === undefined ? null : t(answer.estimated ? "answer.tokensEstimated" : "answer.tokens", { n: answer.tokens }),
    answer.durationMs ? seconds(answer.durationMs) : null,
  ].filter(Boolean);
  return [iconButton("copy", t("answer.copy"), (event) => copy(answer.text, event.currentTarget), { small: true }), h("span.facts", { title: at ? dateTime(at) : null }, facts.join(" · "))];
}

function earlierAnswer(answer) {
  return h("details.tool", {}, h("summary", {}, t(`answer.earlier.${answer.status === "failed" ? "failed" : "partial"}`)), answer.text ? h("div.prose", {}, render(answer.text)) : null, answer.error?.message ? h("p.reason", {}, answer.error.message) : null);
}
