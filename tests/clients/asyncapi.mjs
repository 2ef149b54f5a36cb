// node asyncapi.mjs DIRECTORY-WITH-NODE_MODULES DOCUMENT: fails if AsyncAPI's parser reports an error or a warning.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import process from "node:process";

const [place, file] = process.argv.slice(2);
const { Parser } = createRequire(`${place}/`)("@asyncapi/parser");
const { document, diagnostics } = await new Parser().parse(readFileSync(file, "utf8"));
const wrong = diagnostics.filter(({ severity }) => severity <= 1); // Errors and warnings.
wrong.forEach(({ code, message, path }) => console.error(`${path.join(".")}: ${message} (${code})`));
if (wrong.length > 0 || !document || document.messages().length === 0) process.exit(1);
console.log(`AsyncAPI ${document.version()}: ${document.messages().length} messages on ${document.channels().length} channels`);
