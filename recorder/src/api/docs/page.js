// Shows the OpenAPI document. Everything is put in as text: nothing in it is ever taken for HTML.

const element = (name, text, ...children) => {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
};

const response = await fetch("/api/openapi.json");
const api = await response.json();

const resolve = (schema) => {
  const name = schema?.$ref?.split("/").pop();
  return name ? { name, ...api.components.schemas[name] } : schema ?? {};
};

// An example of what a schema describes.
const example = (schema, depth = 0) => {
  schema = resolve(schema);
  if (depth > 6) return "…";
  if (schema.allOf) return Object.assign({}, ...schema.allOf.map((part) => example(part, depth)));
  if (schema.oneOf) return example(schema.oneOf.find((part) => part.type !== "null"), depth);
  if (schema.enum) return schema.enum.join(" | ");
  const type = [schema.type].flat().find((one) => one !== "null");
  if (type === "array") return [example(schema.items, depth + 1)];
  if (type === "object") {
    const fields = Object.entries(schema.properties ?? {});
    return Object.fromEntries(fields.map(([name, field]) => [name, example(field, depth + 1)]));
  }
  return schema.format ? `${type} (${schema.format})` : type ?? "any";
};

const json = (content) => {
  const schema = content?.["application/json"]?.schema;
  return schema ? element("pre", JSON.stringify(example(schema), null, 2)) : "";
};

const operation = (path, method, about) => {
  const method_ = element("span", method);
  method_.className = "method";
  const made = element("details", "", element("summary", "", element("code", "", method_, path), about.summary ?? ""));
  if (about.parameters?.length) {
    const row = (one) => element("tr", "", element("td", "", element("code", one.name)), element("td", one.in),
      element("td", [one.description, one.schema?.enum?.join(" | ")].filter(Boolean).join(": ")));
    made.append(element("h4", "Parameters"), element("table", "", ...about.parameters.map(row)));
  }
  if (about.requestBody) made.append(element("h4", "Body"), json(about.requestBody.content));
  made.append(element("h4", "Answers"));
  for (const [status, answer] of Object.entries(about.responses)) {
    made.append(element("div", `${status} ${answer.description}`));
    if (status < 300) made.append(json(answer.content));
  }
  return made;
};

const tags = new Map();
for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, about] of Object.entries(methods)) {
    const tag = about.tags?.[0] ?? "more";
    tags.set(tag, [...(tags.get(tag) ?? []), operation(path, method, about)]);
  }
}
const sections = [...tags].map(([tag, operations]) => element("section", "", element("h2", tag), ...operations));
document.querySelector("#paths").replaceChildren(...sections);
