// The messages of the pages that show the record: usage, calls, the audit log. They are loaded with these pages.

import { addMessages } from "../i18n.js";
import en from "./record/en.js";
import zh from "./record/zh.js";

addMessages({ en, "zh-Hans": zh });
