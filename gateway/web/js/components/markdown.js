// Safe rendering of Markdown. HTML in an answer is shown as text, but for a few elements without attributes. Links may only be
// http, https or mailto, and images become links, because loading an image would reveal the user to another host. Formulas keep
// their source. The result passes through DOMPurify, which returns DOM nodes. The Content-Security-Policy is a third line of
// defence.

import "../../vendor/dompurify-3.4.18/purify.min.js";
import { Marked } from "../../vendor/marked-18.2.1/marked.esm.js";
import { h, iconButton } from "../dom.js";
import { t } from "../i18n.js";
import { isTooComplex } from "../markdown-chunks.js";
import { copyText } from "./ui.js";

const SANITIZE_OPTIONS = {
  ALLOWED_TAGS: ["a", "blockquote", "br", "code", "del", "em", "h3", "h4", "h5", "h6", "hr", "kbd", "li", "ol", "p", "pre", "strong", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr", "ul"],
  ALLOWED_ATTR: ["href", "title", "start", "align", "class"],
  // DOMPurify compares the values of all other attributes with the pattern of addresses.
  ADD_URI_SAFE_ATTR: ["start", "align"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

/** Cells with more characters are not squeezed into narrow columns. */
const LONG_CELL_CHARACTERS = 24;

const escapeHtml = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

/** Escapes HTML, and lets elements through that models use in tables and for keys and indices. */
const escapeMostHtml = (html) => escapeHtml(html).replace(/&#60;(\/?(?:br|kbd|sub|sup))\s*\/?&#62;/gi, "<$1>");

/** The source of a formula, which Markdown would otherwise read as emphasis, escapes and lists. */
const formulaHtml = ({ raw }) => escapeHtml(raw).replaceAll("\n", "<br>");

const FORMULA = new RegExp(`^(?:${[
  "\\\\\\([\\s\\S]{1,2000}?\\\\\\)", // \( … \)
  "\\\\\\[[\\s\\S]{1,4000}?\\\\\\]", // \[ … \]
  "\\\\begin\\{(\\w{1,30}\\*?)\\}[\\s\\S]{0,4000}?\\\\end\\{\\1\\}",
  "\\$\\$[^$]{1,4000}?\\$\\$",
  "\\$(?![\\s$])[^$\\n]{0,400}?[^\\s$\\\\]\\$(?!\\d)", // $ … $, but not two prices
  "\\\\[()[\\]]", // the beginning of a formula that is not complete yet
].join("|")})`);
const FORMULA_BLOCK = /^ {0,3}(?:\$\$[^$]{1,8000}?\$\$|\\\[[\s\S]{1,8000}?\\\])[ \t]*(?:\n|$)/;

const marked = new Marked({
  gfm: true,
  breaks: true,
  extensions: [
    {
      name: "formula",
      level: "inline",
      start: (source) => /[$\\]/.exec(source)?.index,
      tokenizer(source) {
        const raw = FORMULA.exec(source)?.[0];
        return raw ? { type: "formula", raw } : undefined;
      },
      renderer: formulaHtml,
    },
    {
      name: "formulaBlock",
      level: "block",
      start: (source) => /(?<=\n) {0,3}(?:\$\$|\\\[)/.exec(source)?.index,
      tokenizer(source) {
        const raw = FORMULA_BLOCK.exec(source)?.[0];
        return raw ? { type: "formulaBlock", raw } : undefined;
      },
      renderer: ({ raw }) => `<p>${formulaHtml({ raw: raw.trim() })}</p>`,
    },
  ],
  renderer: {
    html: ({ text, block }) => (block ? `<p>${escapeMostHtml(text.trim()).replaceAll("\n", "<br>")}</p>` : escapeMostHtml(text)),
    image: ({ href, text }) => `<a href="${escapeHtml(href)}">${escapeHtml(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    // Headings of answers are two levels lower, below the headings of the page.
    heading({ tokens, depth }) {
      const level = Math.min(depth + 2, 6);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
  },
});

/** Renders a chunk of Markdown to a document fragment. `definitions` are the link definitions of the whole text. */
export function renderMarkdown(markdown, definitions = "") {
  let fragment;
  try {
    if (isTooComplex(markdown)) return plainText(markdown);
    fragment = globalThis.DOMPurify.sanitize(marked.parse(definitions ? `${markdown}\n\n${definitions}` : markdown), SANITIZE_OPTIONS);
  } catch {
    // The nesting is too deep for the parser.
    return plainText(markdown);
  }
  for (const link of fragment.querySelectorAll("a")) {
    if (!link.hasAttribute("href")) continue;
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const element of fragment.querySelectorAll("[class]")) {
    if (element.tagName !== "CODE") element.removeAttribute("class");
  }
  // The first letter decides the direction of a block; a list and a table go in the direction of their first word.
  for (const block of fragment.children) block.dir = "auto";
  for (const table of fragment.querySelectorAll("table")) wrapTable(table);
  for (const block of fragment.querySelectorAll("pre")) wrapCodeBlock(block);
  return fragment;
}

/** A fragment with the source text. */
function plainText(markdown) {
  const fragment = document.createDocumentFragment();
  fragment.append(h("p.plain-text", { dir: "auto" }, markdown));
  return fragment;
}

function wrapTable(table) {
  for (const cell of table.querySelectorAll("th, td")) {
    if (cell.textContent.length > LONG_CELL_CHARACTERS) cell.classList.add("long");
  }
  const frame = h("div.table-scroller", { tabindex: "0", role: "group", "aria-label": t("answer.table") });
  table.replaceWith(frame);
  frame.append(table);
}

/** Wraps a code block in a frame with the name of the language and a copy button. */
function wrapCodeBlock(block) {
  const code = block.querySelector("code");
  const languageMatch = /language-([\w+#.-]{1,30})/.exec(code?.className ?? "");
  code?.removeAttribute("class");
  const text = block.textContent.replace(/\n$/, "");
  const frame = h("div.code", { dir: "ltr" },
    h("div.code-header", {}, h("span", {}, languageMatch?.[1] ?? t("answer.code")), iconButton("copy", t("answer.copyCode"), (event) => copyText(text, event.currentTarget), { small: true })));
  block.removeAttribute("dir");
  block.tabIndex = 0;
  block.replaceWith(frame);
  frame.append(block);
}
