// Turns of a conversation, each of one question and its answer, built from rows of the record. Pure functions.

/**
 * Builds turns from messages and their chats, oldest first. Several new messages of a chat are one question. A turn is `{key, question, role, createdAt, answer,
 * previousAnswers}`. An answer is `{chatId, status, text, reasoning, toolCalls, error, model, tokens, estimated,
 * finishReason, durationMs, isKept, isRecorded}`; the status is `complete`, `partial`, `truncated`, `failed` or `waiting`. The same question
 * sent again after a partial or failed answer is a retry: the turn keeps the earlier answers in `previousAnswers`. Texts that the recording
 * mode did not keep are missing: `isKept` is false, in the turn for the question, whose text is null, and in the answer.
 */
export function buildTurns(messages, chats) {
  const byChat = new Map(chats.map((chat) => [chat.id, { chat, questions: [], answer: null }]));
  for (const message of messages) {
    if (!byChat.has(message.chatId)) byChat.set(message.chatId, { chat: null, questions: [], answer: null });
    if (message.role === "assistant") byChat.get(message.chatId).answer = message;
    else byChat.get(message.chatId).questions.push(message);
  }
  const turns = [];
  // Chat ids ascend with time.
  for (const [chatId, { chat, questions, answer }] of [...byChat].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const last = questions.at(-1);
    const isKept = questions.every(isRecordedInFull);
    const question = last && isKept ? withoutUnanswered(turns, questions.map((message) => message.content).join("\n\n")) : null;
    const turn = { key: chatId, question, isKept, role: last?.role ?? "user", createdAt: last?.createdAt ?? chat?.startedAt, answer: buildAnswer(chatId, chat, answer), previousAnswers: [] };
    const previous = turns.at(-1);
    if (previous && isRetry(previous, turn)) {
      previous.previousAnswers.push(previous.answer);
      previous.answer = turn.answer;
    } else {
      turns.push(turn);
    }
  }
  return turns;
}

/** True if the texts of a message are on the record. Older servers do not name the mode. */
const isRecordedInFull = (message) => (message.recording ?? "full") === "full";

function isRetry(previous, turn) {
  const unfinished = previous.answer.status === "failed" || previous.answer.status === "partial" || earlyEnd(previous.answer.finishReason) !== null;
  return unfinished && turn.question !== null && turn.question === previous.question && turn.role === previous.role;
}

function buildAnswer(chatId, chat, message) {
  const usage = chat?.usage;
  return {
    chatId,
    status: answerStatus(chat, message),
    text: message ? message.content || message.refusal || "" : "",
    reasoning: message?.reasoning ?? "",
    toolCalls: message?.toolCalls ?? [],
    error: chat?.error ?? null,
    model: chat?.upstream?.model ?? message?.model ?? chat?.model ?? "",
    tokens: usage && usage.source !== "unknown" ? usage.totalTokens : null,
    estimated: usage?.source === "estimated",
    finishReason: message?.finishReason ?? null,
    durationMs: chat?.durationMs ?? null,
    isKept: !message || isRecordedInFull(message),
    isRecorded: Boolean(chat) && chat.status !== "started",
  };
}

function answerStatus(chat, message) {
  if (chat?.status === "started") return "waiting";
  // Nobody saw the end, but the answer is whole.
  if (message?.finishReason === "client_gone" && chat?.notes?.includes("drained_to_its_end")) return "complete";
  if (message) return chat && chat.status !== "completed" && message.status === "complete" ? "partial" : message.status;
  return chat && chat.status !== "completed" ? "failed" : "complete";
}

/** Fills in the texts of a chat that ended on this page, as long as the page is open, if the record does not keep them. */
export function fillTexts(turn, seen) {
  if (!seen) return;
  Object.assign(turn, { question: seen.question, isKept: true });
  Object.assign(turn.answer, { text: seen.text, reasoning: seen.reasoning, isKept: true });
}

/** Words of providers for an answer that ended early: at the maximum number of tokens. */
const LENGTH_REASONS = new Set(["length", "max_tokens", "max_output_tokens", "model_context_window_exceeded", "incomplete"]);
/** Words of providers for an answer that a filter stopped or withheld. */
const FILTER_REASONS = new Set(["content_filter", "refusal", "safety", "recitation", "blocklist", "prohibited_content", "spii", "image_safety"]);

/** The cause for which a provider ended an answer before its end: `length`, `filter`, or null. */
export function earlyEnd(finishReason) {
  const reason = String(finishReason ?? "").toLowerCase();
  if (LENGTH_REASONS.has(reason)) return "length";
  return FILTER_REASONS.has(reason) ? "filter" : null;
}

/**
 * Builds the messages of a request: all turns, then the new question. Questions without an answer stand before the next question
 * in one message, because many models want a question and an answer by turns.
 */
export function buildMessages(turns, question) {
  const messages = [];
  let unanswered = [];
  for (const turn of turns) {
    if (!turn.question || turn.role !== "user") continue;
    unanswered.push(turn.question);
    if (!turn.answer.text) continue;
    messages.push({ role: "user", content: unanswered.join("\n\n") }, { role: "assistant", content: turn.answer.text });
    unanswered = [];
  }
  return [...messages, { role: "user", content: [...unanswered, question].join("\n\n") }];
}

/** The question without the unanswered questions of the turns before, which `buildMessages` put before it. */
function withoutUnanswered(turns, question) {
  const unanswered = [];
  for (let index = turns.length - 1; index >= 0 && turns[index].question && !turns[index].answer.text && turns[index].role === "user"; index -= 1) unanswered.unshift(turns[index].question);
  for (; unanswered.length; unanswered.shift()) {
    const prefix = `${unanswered.join("\n\n")}\n\n`;
    if (question.startsWith(prefix)) return question.slice(prefix.length);
  }
  return question;
}
