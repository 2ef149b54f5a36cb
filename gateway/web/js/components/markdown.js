// Safe rendering of Markdown. HTML in an answer is shown as text, links may only be http, https or mailto, and images become
// links, because loading an image would reveal the user to another host. The result passes through DOMPurify, which returns
// DOM nodes. The Content-Security-Policy is a third line of defence.

import "../../vendor/dompurify-3.4.18/purify.min.js";
import { Marked } from "../../vendor/marked-18.2.1/marked.esm.js";
import { h, iconButton } from "../dom.js";
import { t } from "../i18n.js";
import { copyText } from "./ui.js";

const SANITIZE_OPTIONS = {
  ALLOWED_TAGS: ["a", "blockquote", "br", "code", "del", "em", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"],
  ALLOWED_ATTR: ["href", "title", "start", "align", "class"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const escapeHtml = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escapeHtml(text),
    image: ({ href, text }) => `<a href="${escapeHtml(href)}">${escapeHtml(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    // Headings of answers are two levels lower, below the headings of the page.
    heading({ tokens, depth }) {
      const level = Math.min(depth + 2, 6);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
  },
});

/** Renders Markdown to a document fragment. */
export function renderMarkdown(markdown) {
  let fragment;
  try {
    fragment = globalThis.DOMPurify.sanitize(marked.parse(markdown), SANITIZE_OPTIONS);
  } catch {
    // The nesting is too deep for the parser: show the source text.
    return h("p.plain-text", {}, markdown);
  }
  for (const link of fragment.querySelectorAll("a")) {
    if (!link.hasAttribute("href")) continue;
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const element of fragment.querySelectorAll("[class]")) {
    if (element.tagName !== "CODE") element.removeAttribute("class");
  }
  for (const table of fragment.querySelectorAll("table")) {
    const frame = h("div.table-scroller", { tabindex: "0", role: "group", "aria-label": t("answer.table") });
    table.replaceWith(frame);
    frame.append(table);
  }
  for (const block of fragment.querySelectorAll("pre")) wrapCodeBlock(block);
  return fragment;
}

/** Wraps a code block in a frame with the name of the language and a copy button. */
function wrapCodeBlock(block) {
  const code = block.querySelector("code");
  const languageMatch = /language-([\w+#.-]{1,30})/.exec(code?.className ?? "");
  code?.removeAttribute("class");
  const text = block.textContent.replace(/\n$/, "");
  const frame = h("div.code", {},
    h("div.code-header", {}, h("span", {}, languageMatch?.[1] ?? t("answer.code")), iconButton("copy", t("answer.copyCode"), (event) => copyText(text, event.currentTarget), { small: true })));
  block.tabIndex = 0;
  block.replaceWith(frame);
  frame.append(block);
}
