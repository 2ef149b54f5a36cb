// Where pages begin.

import { start } from "./router.js";

start();
