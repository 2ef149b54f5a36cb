// Functions that create DOM elements. Strings become text nodes and are never parsed as HTML.

import { sitePath } from "./address.js";

const SVG = "http://www.w3.org/2000/svg";
const SPRITE = new URL("../icons.svg", import.meta.url).pathname;

/**
 * Creates an element: `h("a.button", {href: "/", onclick: f}, "text", child)`. Attributes that are null or false are left
 * out, `on*` attributes are event listeners, `class` adds to the classes in the name, and `href` is a path of the site. Children may be nodes, strings,
 * arrays or null.
 */
export function h(name, attributes, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.classList.add(...classes);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "class") element.classList.add(...String(value).split(" ").filter(Boolean));
    else if (key === "value") element.value = value;
    else if (key === "href" && value.startsWith("/")) element.setAttribute(key, sitePath(value));
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  appendChildren(element, children);
  return element;
}

/** Appends children. Arrays are flattened; null, undefined and false are left out. */
function appendChildren(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) appendChildren(element, child);
    else element.append(child instanceof Node ? child : String(child));
  }
}

/** Replaces all children of an element; the children may be as in `h`. */
export function replaceChildren(element, ...children) {
  element.replaceChildren();
  appendChildren(element, children);
  return element;
}

/** An icon of icons.svg. Icons stand beside a label and are hidden from screen readers. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `${SPRITE}#${name}`);
  svg.append(use);
  return svg;
}

/** A button that shows only an icon; `label` is the accessible name and the tooltip. */
export function iconButton(name, label, onclick, options = {}) {
  const { small, ...attributes } = options;
  return h(small ? "button.icon-button.small" : "button.icon-button", { type: "button", "aria-label": label, title: label, onclick, ...attributes }, icon(name));
}

/** Returns a function that calls `callback` once `delayMs` have passed without a further call. */
export function debounce(delayMs, callback) {
  let timer;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => callback(...args), delayMs);
  };
}
