// The pages' words in English and Chinese, and numbers and times as the reader writes them.

import en from "./locales/en.js";
import zh from "./locales/zh.js";
import { preferences } from "./storage.js";

const LANGUAGES = { en, "zh-Hans": zh };

/** The languages there are, in their own words. */
export const languages = [["en", "English"], ["zh-Hans", "简体中文"]];

/** The language in use. theme.js chose it before the first paint. */
export function language() {
  return LANGUAGES[document.documentElement.lang] ? document.documentElement.lang : "en";
}

/** Chooses a language; whoever shows words has to show them again. */
export function setLanguage(tag) {
  document.documentElement.lang = tag;
  preferences.set("language", tag);
}

/** The words for `key`, with `{name}` replaced. `n` also chooses between one and many. */
export function t(key, values) {
  let words = LANGUAGES[language()][key] ?? en[key] ?? key;
  if (typeof words === "object") words = words[new Intl.PluralRules(locale()).select(Number(values?.n))] ?? words.other;
  if (!values) return words;
  return words.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return typeof value === "number" ? number(value) : String(value ?? "");
  });
}

/** Numbers and times follow the reader's region where it is of the chosen language. */
function locale() {
  const prefix = language().slice(0, 2);
  return navigator.languages?.find((tag) => tag.toLowerCase().startsWith(prefix)) ?? language();
}

/** The reader's time zone. */
export const timeZone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

export const number = (value) => new Intl.NumberFormat(locale()).format(value);
export const compact = (value) => new Intl.NumberFormat(locale(), { notation: "compact", maximumFractionDigits: 1 }).format(value);
export const percent = (value) => new Intl.NumberFormat(locale(), { style: "percent", maximumFractionDigits: 1 }).format(value);
export const dateTime = (value) => format(value, { dateStyle: "medium", timeStyle: "short" });
export const time = (value) => format(value, { timeStyle: "short" });
export const month = (value) => format(value, { month: "long", year: "numeric" });

/** A calendar day given as `YYYY-MM-DD`, whatever the zone. */
export const day = (value) => format(`${value}T00:00:00Z`, { weekday: "short", month: "short", day: "numeric", timeZone: "UTC" });
export const shortDay = (value) => format(`${value}T00:00:00Z`, { month: "short", day: "numeric", timeZone: "UTC" });

/** A duration given in milliseconds. */
export const seconds = (ms) => new Intl.NumberFormat(locale(), { style: "unit", unit: "second", maximumFractionDigits: ms < 10_000 ? 1 : 0 }).format(ms / 1000);

function format(value, options) {
  const when = new Date(value);
  return Number.isNaN(when.getTime()) ? "" : new Intl.DateTimeFormat(locale(), options).format(when);
}
