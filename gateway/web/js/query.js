// The query of the address, in which pages keep what the reader has chosen, so that a reload or a link shows the same.

import { currentPath } from "./address.js";
import { replaceAddress } from "./navigation.js";

/** The parameters of the address, as an object. */
export const readQuery = () => Object.fromEntries(new URLSearchParams(location.search));

/** Keeps these parameters in the address, and leaves out those without a value. The page stays as it is. */
export function writeQuery(parameters) {
  const entries = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  replaceAddress(currentPath() + (entries.length ? `?${new URLSearchParams(entries)}` : ""));
}
