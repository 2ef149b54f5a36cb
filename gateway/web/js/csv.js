// Files of comma-separated values, for spreadsheets.

/** The first characters for which spreadsheets take a cell for a formula. */
const FORMULA = /^[=+\-@\t\r\n＝＋－＠]/;

/** A cell. Text that a spreadsheet would run as a formula begins with an apostrophe instead. */
function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = FORMULA.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The text of a file with these rows of cells. The mark at its beginning makes Excel read the file as UTF-8. */
export const csvText = (rows) => `\ufeff${rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("")}`;

/** Offers a text as a file to download. */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Nano-dollars as dollars with all nine decimals, exactly. */
export function exactDollars(nanodollars) {
  const digits = String(Math.abs(nanodollars)).padStart(10, "0");
  return `${nanodollars < 0 ? "-" : ""}${digits.slice(0, -9)}.${digits.slice(-9)}`;
}
