// Light, dark, or as the system has it.

import { preferences } from "./storage.js";

export const themes = ["auto", "light", "dark"];

export const theme = () => document.documentElement.dataset.theme ?? "auto";

export function setTheme(chosen) {
  if (chosen === "auto") {
    delete document.documentElement.dataset.theme;
    preferences.remove("theme");
  } else {
    document.documentElement.dataset.theme = chosen;
    preferences.set("theme", chosen);
  }
  dispatchEvent(new Event("themechange"));
}

export const nextTheme = () => setTheme(themes[(themes.indexOf(theme()) + 1) % themes.length]);
