// The theme of the pages: light, dark, or `auto` for the setting of the system.

import { preferences } from "./storage.js";

export const themes = ["auto", "light", "dark"];

export const currentTheme = () => document.documentElement.dataset.theme ?? "auto";

export function setTheme(theme) {
  if (theme === "auto") {
    delete document.documentElement.dataset.theme;
    preferences.remove("theme");
  } else {
    document.documentElement.dataset.theme = theme;
    preferences.set("theme", theme);
  }
  dispatchEvent(new Event("themechange"));
}

export const cycleTheme = () => setTheme(themes[(themes.indexOf(currentTheme()) + 1) % themes.length]);
