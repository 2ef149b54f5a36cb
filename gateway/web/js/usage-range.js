// Ranges of days: the last days, the period before a range, and the size of the buckets into which a range is cut.

import { timeZone } from "./i18n.js";

/** The ranges that are offered, in days up to today. */
export const PRESETS = [1, 7, 30, 90];

/** The first day that the API takes. */
export const FIRST_DAY = "1973-01-01";

const DAY = /^\d{4}-\d{2}-\d{2}$/;

/** Today in the reader's time zone. */
export const today = () => new Intl.DateTimeFormat("en-CA", { timeZone, year: "numeric", month: "2-digit", day: "2-digit" }).format(new Date());

/** The range of the last days, including today. */
export function lastDays(days) {
  const to = today();
  return { from: addDays(to, 1 - days), to };
}

/** The number of days in a range, both ends included. */
export const daysIn = ({ from, to }) => Math.round((Date.parse(`${to}T00:00:00Z`) - Date.parse(`${from}T00:00:00Z`)) / 86_400_000) + 1;

/** The range of the same length that ends the day before a range begins. Null if the API has no such days. */
export function periodBefore(range) {
  const from = addDays(range.from, -daysIn(range));
  return from < FIRST_DAY ? null : { from, to: addDays(range.from, -1) };
}

/** The size of the buckets of a range: at most about a hundred bars in a chart. */
export function bucketOf(range) {
  const days = daysIn(range);
  if (days <= 2) return "hour";
  if (days <= 100) return "day";
  return days <= 730 ? "week" : "month";
}

/** True for two days in order. */
export const isRange = ({ from, to }) => [from, to].every((day) => DAY.test(day ?? "") && !Number.isNaN(Date.parse(`${day}T00:00:00Z`))) && from >= FIRST_DAY && from <= to && to < "9990-01-01";

function addDays(day, days) {
  const date = new Date(`${day}T00:00:00Z`);
  date.setUTCDate(date.getUTCDate() + days);
  return date.toISOString().slice(0, 10);
}
