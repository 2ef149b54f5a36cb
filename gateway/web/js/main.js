// The entry point of the pages.

import { start } from "./router.js";

start();
