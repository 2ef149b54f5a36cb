// Markdown cut into chunks that are rendered one by one, so that a long answer never blocks the page, and a chunk that is
// complete is not rendered again while the answer grows. Pure functions.

/** A chunk ends at the first possible place after so many characters. */
const CHUNK_CHARACTERS = 1500;
/** A list, a table or a paragraph that is longer is cut between two lines. */
const MAX_CHUNK_CHARACTERS = 6000;
const MAX_CHUNK_LINES = 150;
/** The maximum number of formatting characters in a chunk outside of code blocks; Markdown parsers take quadratic time. */
const MAX_MARKERS = 1500;
/** The maximum length of one line of text that is parsed. */
const MAX_LINE_CHARACTERS = 20_000;

const FENCE = /^ {0,3}(`{3,}(?=[^`]*$)|~{3,})/;
const LIST_ITEM = /^ {0,3}(?:[-*+]|\d{1,9}[.)])(?:\s|$)/;
const TABLE_DELIMITER = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const NESTED_TOO_DEEPLY = /^(?:[ \t]*(?:>|[-*+][ \t]|\d{1,9}[.)][ \t])){25}/m;

/**
 * Cuts Markdown into chunks `{source, continues}`. The concatenation of the rendered chunks is the rendered whole. `continues`
 * is `table` or `list` if the chunk has rows or items of the table or list with which the chunk before ends. Text that is
 * appended later changes only the last chunk.
 */
export function splitMarkdown(markdown) {
  const chunks = [];
  let lines = [];
  let size = 0;
  let fence = null;
  let table = null;
  let previous = "";
  let continues = null;

  const cut = (next = null) => {
    if (lines.length) chunks.push({ source: lines.join("\n"), continues });
    lines = [];
    size = 0;
    continues = next;
    if (next === "table") add(table);
  };
  const add = (line) => {
    lines.push(line);
    size += line.length + 1;
  };

  for (const line of markdown.split("\n")) {
    const isBlank = line.trim() === "";
    if (!fence) {
      if (isBlank || !line.includes("|")) table = null;
      if (size >= CHUNK_CHARACTERS && beginsBlock(line, previous)) cut();
      else if (lines.length && (size >= MAX_CHUNK_CHARACTERS || lines.length >= MAX_CHUNK_LINES) && !isBlank) {
        if (table) cut("table");
        else if (LIST_ITEM.test(line)) cut("list");
        else if (size >= 2 * MAX_CHUNK_CHARACTERS || lines.length >= 2 * MAX_CHUNK_LINES) cut();
      }
      if (!table && line.includes("|") && previous.includes("|") && TABLE_DELIMITER.test(line)) table = `${previous}\n${line}`;
    }
    add(line);
    if (fence) {
      if (closes(line, fence)) fence = null;
    } else {
      fence = FENCE.exec(line)?.[1] ?? null;
    }
    previous = line;
  }
  cut();
  return chunks;
}

/** True if the line is the first of a block that is independent of all lines before. */
function beginsBlock(line, previous) {
  return previous.trim() === "" && line.trim() !== "" && !/^[ \t]/.test(line) && !LIST_ITEM.test(line);
}

function closes(line, fence) {
  const text = line.trim();
  return text.length >= fence.length && text === fence[0].repeat(text.length) && /^ {0,3}\S/.test(line);
}

/** The definitions of links (`[name]: address`), which may follow their use, as Markdown. */
export function linkDefinitions(markdown) {
  if (!markdown.includes("]:")) return "";
  return (markdown.match(/^ {0,3}\[[^\]\n]{1,200}\]:[ \t]*\S[^\n]*$/gm) ?? []).slice(0, 200).join("\n");
}

/** True if parsing the chunk might take long. Such a chunk is shown as its source. */
export function isTooComplex(source) {
  let markers = 0;
  let fence = null;
  for (const line of source.split("\n")) {
    if (fence) {
      if (closes(line, fence)) fence = null;
      continue;
    }
    fence = FENCE.exec(line)?.[1] ?? null;
    if (fence) continue;
    if (line.length > MAX_LINE_CHARACTERS) return true;
    markers += (line.match(/[*_~`[\]!<>\\$]/g) ?? []).length;
  }
  return markers > MAX_MARKERS || NESTED_TOO_DEEPLY.test(source);
}
