// Reads server-sent events from a response body.

/** Yields `{data, event, id}` of each server-sent event with data. `id` is null for an event without an id. */
export async function* readServerSentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  let fields = { data: [], event: "message", id: null };
  const complete = () => {
    const { data, event, id } = fields;
    fields = { data: [], event: "message", id: null };
    return { data: data.join("\n"), event, id };
  };
  try {
    for (;;) {
      const { value, done } = await reader.read();
      pending += value ?? "";
      const lines = pending.split(/\r\n|\n|\r(?!$)/);
      pending = done ? "" : lines.pop();
      for (const line of lines) {
        if (line === "" && fields.data.length) yield complete();
        else addField(line, fields);
      }
      if (done) break;
    }
    if (fields.data.length) yield complete();
  } finally {
    reader.cancel().catch(() => {});
  }
}

function addField(line, fields) {
  const colon = line.indexOf(":");
  if (colon < 1) return;
  const value = line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
  const name = line.slice(0, colon);
  if (name === "data") fields.data.push(value);
  else if (name === "event") fields.event = value;
  else if (name === "id") fields.id = value;
}
