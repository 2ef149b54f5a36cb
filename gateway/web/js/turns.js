// Rows of the record as a conversation is read: turns of one question and its answer. Pure.

/**
 * Turns of messages and their chats, oldest first. A turn is `{key, asked, role, answer, earlier}`: `answer` is
 * `{chatId, status, text, reasoning, toolCalls, error, model, tokens, estimated, finishReason, durationMs}`, with the status
 * `complete`, `partial`, `truncated`, `failed` or `waiting`. The same question asked again after an answer that was not whole
 * is another try: `earlier` has the answers before.
 */
export function turnsOf(messages, chats) {
  const byChat = new Map(chats.map((chat) => [chat.id, { chat, asked: null, answer: null }]));
  for (const message of messages) {
    if (!byChat.has(message.chatId)) byChat.set(message.chatId, { chat: null, asked: null, answer: null });
    byChat.get(message.chatId)[message.role === "assistant" ? "answer" : "asked"] = message;
  }
  const turns = [];
  // Chat ids ascend with time.
  for (const [chatId, { chat, asked, answer }] of [...byChat].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const turn = { key: chatId, asked: asked?.content ?? null, role: asked?.role ?? "user", at: asked?.createdAt ?? chat?.startedAt, answer: answerOf(chatId, chat, answer), earlier: [] };
    const before = turns.at(-1);
    if (before && isAnotherTry(before, turn)) {
      before.earlier.push(before.answer);
      before.answer = turn.answer;
    } else {
      turns.push(turn);
    }
  }
  return turns;
}

function isAnotherTry(before, turn) {
  const unfinished = before.answer.status === "failed" || before.answer.status === "partial";
  return unfinished && turn.asked !== null && turn.asked === before.asked && turn.role === before.role;
}

function answerOf(chatId, chat, message) {
  const usage = chat?.usage;
  return {
    chatId,
    status: statusOf(chat, message),
    text: message ? message.content || message.refusal || "" : "",
    reasoning: message?.reasoning ?? "",
    toolCalls: message?.toolCalls ?? [],
    error: chat?.error ?? null,
    model: chat?.upstream?.model ?? message?.model ?? chat?.model ?? "",
    tokens: usage && usage.source !== "unknown" ? usage.totalTokens : null,
    estimated: usage?.source === "estimated",
    finishReason: message?.finishReason ?? null,
    durationMs: chat?.durationMs ?? null,
  };
}

function statusOf(chat, message) {
  if (chat?.status === "started") return "waiting";
  if (message) return chat && chat.status !== "completed" && message.status === "complete" ? "partial" : message.status;
  return chat && chat.status !== "completed" ? "failed" : "complete";
}

/** What the model is told: every turn that has an answer, then the new question. */
export function toMessages(turns, question) {
  const answered = turns.filter((turn) => turn.asked && turn.answer.text && turn.role === "user");
  const told = answered.flatMap((turn) => [{ role: "user", content: turn.asked }, { role: "assistant", content: turn.answer.text }]);
  return [...told, { role: "user", content: question }];
}
