// The course of a call as bars over time: every attempt at an upstream, the wait for the first token, and the answer.

import { h } from "../dom.js";
import { formatSeconds, t } from "../i18n.js";

/** The steps of a call: name, kind, begin and length in milliseconds from the start of the call, and what went wrong. */
export function stepsOf(call) {
  const start = Date.parse(call.startedAt);
  const steps = call.attempts.map((attempt) => ({
    kind: attempt.error || (attempt.status ?? 200) >= 400 ? "failed" : "attempt",
    name: attempt.upstream,
    begin: Math.max(0, Date.parse(attempt.startedAt) - start) || 0,
    length: Math.max(0, attempt.durationMs),
    outcome: [attempt.status ? `HTTP ${attempt.status}` : null, attempt.error].filter(Boolean).join(" · "),
  }));
  const last = steps.at(-1);
  if (!last || last.kind === "failed" || call.durationMs === null) return steps;
  const head = last.begin + last.length;
  const first = call.timeToFirstTokenMs;
  if (first !== null && first > head) steps.push({ kind: "wait", name: t("calls.untilFirstToken"), begin: head, length: first - head, outcome: "" });
  const answer = Math.max(head, first ?? head);
  if (call.durationMs > answer) steps.push({ kind: "answer", name: t("calls.answer"), begin: answer, length: call.durationMs - answer, outcome: "" });
  return steps;
}

/** The steps as a list with bars. A screen reader reads the numbers. */
export function waterfall(call) {
  const steps = stepsOf(call);
  const end = Math.max(1, call.durationMs ?? 0, ...steps.map(({ begin, length }) => begin + length));
  return h("ol.waterfall", {}, steps.map(({ kind, name, begin, length, outcome }) => {
    const bar = h("span.waterfall-bar", { class: kind });
    bar.style.setProperty("margin-inline-start", `${(100 * begin) / end}%`);
    bar.style.setProperty("width", `${Math.max(0.5, (100 * length) / end)}%`);
    return h("li", { "data-kind": kind, "data-begin": begin, "data-length": length },
      h("span.waterfall-name", {}, h("b", {}, name), outcome ? h("span", {}, outcome) : null),
      h("span.waterfall-track", { "aria-hidden": "true" }, bar),
      h("span.waterfall-time", {}, t("calls.step", { begin: formatSeconds(begin), length: formatSeconds(length) })));
  }));
}
