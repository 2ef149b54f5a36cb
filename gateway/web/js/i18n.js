// Translated messages in English and Chinese, and numbers and times in the format of the user's region.

import en from "./locales/en.js";
import zh from "./locales/zh.js";
import { preferences } from "./storage.js";

const LANGUAGES = { en, "zh-Hans": zh };

/** The available languages: tag and native name. */
export const languages = [["en", "English"], ["zh-Hans", "简体中文"]];

/** The tag of the current language. theme.js sets the language before the first paint. */
export function currentLanguage() {
  return LANGUAGES[document.documentElement.lang] ? document.documentElement.lang : "en";
}

/** Adds the messages of pages that are not loaded at first: by language, then by key. */
export function addMessages(messages) {
  for (const [tag, more] of Object.entries(messages)) Object.assign(LANGUAGES[tag], more);
}

/** Sets and stores the language. The caller has to rebuild the page. */
export function setLanguage(tag) {
  document.documentElement.lang = tag;
  preferences.set("language", tag);
}

/** The message for `key`, with each `{name}` replaced by a value. The value `n` also selects the plural form. */
export function t(key, values) {
  let message = LANGUAGES[currentLanguage()][key] ?? en[key] ?? key;
  if (typeof message === "object") message = message[new Intl.PluralRules(locale()).select(Number(values?.n))] ?? message.other;
  if (!values) return message;
  return message.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return typeof value === "number" ? formatNumber(value) : String(value ?? "");
  });
}

/** The locale of numbers and times: the browser's first locale of the current language, which adds the region. */
function locale() {
  const prefix = currentLanguage().slice(0, 2);
  return navigator.languages?.find((tag) => tag.toLowerCase().startsWith(prefix)) ?? currentLanguage();
}

/** The IANA name of the user's time zone. */
export const timeZone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

export const formatNumber = (value) => new Intl.NumberFormat(locale()).format(value);
/** Formats an amount in dollars: cents at least, and as many further digits as small amounts have. */
export const formatDollars = (value) => new Intl.NumberFormat(locale(), { style: "currency", currency: "USD", minimumFractionDigits: 2, maximumFractionDigits: value !== 0 && Math.abs(value) < 1 ? 6 : 2 }).format(value);
export const formatCompact = (value) => new Intl.NumberFormat(locale(), { notation: "compact", maximumFractionDigits: 1 }).format(value);
export const formatPercent = (value) => new Intl.NumberFormat(locale(), { style: "percent", maximumFractionDigits: 1 }).format(value);
/** Formats a change as a share with its sign. */
export const formatChange = (value) => new Intl.NumberFormat(locale(), { style: "percent", maximumFractionDigits: 0, signDisplay: "exceptZero" }).format(value);
/** Formats nano-dollars, of which small amounts keep their digits. */
export const formatCost = (nanodollars) => formatDollars(nanodollars / 1e9);
/** Formats nano-dollars in few characters: three digits of small amounts, and large amounts rounded. */
export const formatShortCost = (nanodollars) => {
  const dollars = nanodollars / 1e9;
  const digits = dollars >= 10_000 ? { notation: "compact", maximumFractionDigits: 1 } : dollars > 0 && dollars < 1 ? { maximumSignificantDigits: 3 } : {};
  return new Intl.NumberFormat(locale(), { style: "currency", currency: "USD", ...digits }).format(dollars);
};
export const formatDateTime = (value) => formatDate(value, { dateStyle: "medium", timeStyle: "short" });
export const formatMonth = (value) => formatDate(value, { month: "long", year: "numeric" });

/** Formats the beginning of a bucket of usage, which the API gives as a local day or a local time. */
export const formatBucket = (label, bucket) => formatDate(instantOf(label), { ...BUCKET_FORMATS[bucket], timeZone: "UTC" });
export const formatShortBucket = (label, bucket) => formatDate(instantOf(label), { ...SHORT_BUCKET_FORMATS[bucket], timeZone: "UTC" });
const BUCKET_FORMATS = { hour: { weekday: "short", month: "short", day: "numeric", hour: "numeric", minute: "2-digit" }, day: { weekday: "short", month: "short", day: "numeric" }, week: { month: "short", day: "numeric", year: "numeric" }, month: { month: "long", year: "numeric" } };
const SHORT_BUCKET_FORMATS = { hour: { hour: "numeric", minute: "2-digit" }, day: { month: "short", day: "numeric" }, week: { month: "short", day: "numeric" }, month: { month: "short", year: "numeric" } };
const instantOf = (label) => `${label.length === 10 ? `${label}T00:00` : label}:00Z`;
/** Formats a day with its year, given as `YYYY-MM-DD`. */
export const formatFullDay = (value) => formatDate(`${value}T00:00:00Z`, { dateStyle: "medium", timeZone: "UTC" });

/** Formats a duration given in milliseconds as seconds, or as milliseconds where seconds would be zero. */
export const formatSeconds = (ms) => ms < 100 ? new Intl.NumberFormat(locale(), { style: "unit", unit: "millisecond", maximumFractionDigits: 0 }).format(Math.max(1, ms)) : new Intl.NumberFormat(locale(), { style: "unit", unit: "second", maximumFractionDigits: ms < 10_000 ? 1 : 0 }).format(ms / 1000);

function formatDate(value, options) {
  const date = new Date(value);
  return Number.isNaN(date.getTime()) ? "" : new Intl.DateTimeFormat(locale(), options).format(date);
}
