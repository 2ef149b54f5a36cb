// API keys: the list, and the dialogs that create, change and revoke a key. Of one user, or for admins of all users.

import { getJson, requestJson } from "../api.js";
import { h, icon, replaceChildren } from "../dom.js";
import { formatDateTime, t } from "../i18n.js";
import { user as currentUser } from "../session.js";
import { listSection, PagedList } from "./paged-list.js";
import { loadProjects, openProjects, projectName } from "./project-names.js";
import { snippets } from "./snippets.js";
import { copyText, field, openDialog, toast } from "./ui.js";
import { knownUsers, loadUserNames, userName } from "./user-names.js";

/** The kinds of calls that a key can be limited to, the most frequent first. */
export const OPERATIONS = ["chat", "embeddings", "text_completion", "rerank", "moderation", "image_generation", "image_edit", "image_variation", "speech", "transcription", "translation", "response_compaction", "pass_through"];
/** The times for which a new key is valid, in days. */
const VALIDITIES = [7, 30, 90, 365];
const DEFAULT_VALIDITY = 90;
const DAY_MS = 86_400_000;

/** The name of a kind of calls; a kind that the page does not know is shown as it is. */
export function operationName(operation) {
  const key = `operation.${operation}`;
  const name = t(key);
  return name === key ? operation : name;
}

/** The section of the keys of the current user, or with `ofAll` of all users. */
export function keySection({ ofAll = false } = {}) {
  const list = new PagedList({
    path: ofAll ? "/api/admin/keys" : "/api/keys",
    empty: t(ofAll ? "keys.noneOfAll" : "keys.none"),
    before: () => Promise.all([loadProjects({ ofAll }), ofAll ? loadUserNames() : null]),
    row: (key) => keyRow(key, { showOwner: ofAll }),
  });
  const create = h("button.button.primary", { type: "button", onclick: () => createKey(list, { askOwner: ofAll }) }, icon("plus"), t("keys.new"));
  return listSection({ id: "keys-title", title: t("keys.title"), intro: t(ofAll ? "keys.introOfAll" : "keys.intro"), controls: create, list });
}

function keyRow(key, { showOwner }) {
  const row = h("li.row", { "data-key": key.id });
  const render = () => {
    const state = stateOf(key);
    const label = (action) => `${t(action)}: ${key.name}`;
    replaceChildren(row,
      h("div.row-main", {}, h("strong", {}, key.name || t("keys.unnamed")), state === "valid" ? null : h("span.badge", { class: state === "revoked" ? "bad" : "" }, t(`keys.${state}`)),
        h("span.row-details", {}, details(key, showOwner)),
        h("span.row-details", {}, scope(key))),
      state === "revoked" ? null : h("div.row-buttons", {},
        h("button.button.secondary.small", { type: "button", "aria-label": label("keys.change"), onclick: change }, t("keys.change")),
        h("button.button.secondary.small", { type: "button", "aria-label": label("keys.revoke"), onclick: revoke }, t("keys.revoke"))));
  };
  async function change() {
    const expiry = expiryField(key.expiresAt);
    await openDialog({
      title: t("keys.changeTitle"),
      fields: [...settingFields(key), expiry.element],
      submitLabel: t("save"),
      submit: async (data) => {
        const expiresAt = expiry.value();
        Object.assign(key, await requestJson("PATCH", pathOf(key), { body: { ...settings(data), ...(expiresAt === undefined ? {} : { expiresAt }) } }));
        render();
      },
    });
  }
  async function revoke() {
    const confirmed = await openDialog({ title: t("keys.revokeTitle", { name: key.name }), text: t("keys.revokeText"), submitLabel: t("keys.revoke"), kind: "danger" });
    if (!confirmed) return;
    try {
      await requestJson("DELETE", pathOf(key));
      Object.assign(key, { revokedAt: new Date().toISOString() });
      render();
    } catch (error) {
      toast(error.message);
    }
  }
  render();
  return row;
}

const pathOf = (key) => `/api/keys/${encodeURIComponent(key.id)}`;

function stateOf(key) {
  if (key.revokedAt) return "revoked";
  return key.expiresAt && new Date(key.expiresAt) <= new Date() ? "expired" : "valid";
}

function details(key, showOwner) {
  return [
    showOwner ? userName(key.userId) : null,
    key.projectId ? t("keys.ofProject", { name: projectName(key.projectId) }) : null,
    key.lastUsedAt ? t("keys.lastUsed", { when: formatDateTime(key.lastUsedAt) }) : t("keys.neverUsed"),
    key.revokedAt ? t("keys.revokedAt", { when: formatDateTime(key.revokedAt) }) : key.expiresAt ? t("keys.expires", { when: formatDateTime(key.expiresAt) }) : t("keys.neverExpires"),
    key.createdAt ? t("keys.created", { when: formatDateTime(key.createdAt) }) : null,
  ].filter(Boolean).join(" · ");
}

/** Lists what the key may do. */
function scope(key) {
  const models = key.models.length ? t("keys.someModels", { list: key.models.join(", ") }) : t("keys.allModels");
  const operations = key.operations.length ? key.operations.map(operationName).join(", ") : t("keys.allOperations");
  return `${models} · ${operations}`;
}

function settingFields(key) {
  const models = h("textarea.input", { name: "models", rows: 2, maxlength: 8300, spellcheck: "false", autocapitalize: "off", value: (key?.models ?? []).join("\n") });
  const boxes = OPERATIONS.map((operation) => h("label.check-field", {}, h("input", { type: "checkbox", name: "operations", value: operation, checked: key?.operations.includes(operation) ?? false }), operationName(operation)));
  const others = (key?.operations ?? []).filter((operation) => !OPERATIONS.includes(operation)).map((operation) => h("input", { type: "hidden", name: "operations", value: operation }));
  return [
    field("name", t("keys.name"), { required: true, maxlength: 100, autocomplete: "off", value: key?.name ?? "", hint: t("keys.nameHint") }),
    field("models", t("keys.models"), { input: models, hint: t("keys.modelsHint") }),
    h("fieldset.fieldset", {}, h("legend", {}, t("keys.operations")), h("div.checks", {}, boxes), others, h("span.hint", {}, t("keys.operationsHint"))),
  ];
}

/** The settings that the fields of `settingFields` hold. */
function settings(data) {
  return {
    name: data.get("name").trim(),
    models: data.get("models").split(/[\n,]/).map((model) => model.trim()).filter(Boolean),
    operations: data.getAll("operations"),
  };
}

/** A choice of the expiry; `value()` is a time, null for never, or undefined to keep the present expiry. */
function expiryField(present) {
  const kept = present === undefined ? [] : [["keep", present ? t("keys.keepExpiry", { when: formatDateTime(present) }) : t("keys.keepNoExpiry")]];
  const choices = [...kept, ...VALIDITIES.map((days) => [String(days), t("keys.days", { n: days })]), ...(present === null ? [] : [["never", t("keys.never")]])];
  const select = h("select.input", {}, choices.map(([value, label]) => h("option", { value }, label)));
  select.value = kept.length ? "keep" : String(DEFAULT_VALIDITY);
  const value = () => {
    if (select.value === "keep") return undefined;
    return select.value === "never" ? null : new Date(Date.now() + Number(select.value) * DAY_MS).toISOString();
  };
  return { element: field("expiry", t("keys.expiry"), { input: select }), value };
}

/** A choice of the project of a new key, which appears once the projects are loaded, if there are any. */
function projectField({ ofAll }) {
  const place = h("div", {});
  loadProjects({ ofAll }).then(() => {
    const choices = [["", t("keys.noProject")], ...openProjects().map(({ id, name }) => [id, name])];
    const select = h("select.input", { name: "project" }, choices.map(([value, label]) => h("option", { value }, label)));
    if (choices.length > 1) replaceChildren(place, field("project", t("keys.project"), { input: select, hint: t("keys.projectHint") }));
  });
  return place;
}

/** A field for the owner of a new key: a name from the list of users, or an id. */
function ownerField() {
  const names = h("datalist", { id: "key-owners" }, knownUsers().map(([, name]) => h("option", { value: name })));
  return [field("owner", t("keys.owner"), { required: true, list: "key-owners", autocomplete: "off", maxlength: 255, value: currentUser.name ?? currentUser.id, hint: t("keys.ownerHint") }), names];
}

function ownerId(text) {
  const owner = text.trim();
  return knownUsers().find(([id, name]) => name === owner || id === owner)?.[0] ?? (owner === currentUser.name ? currentUser.id : owner);
}

async function createKey(list, { askOwner }) {
  const expiry = expiryField(undefined);
  let created = null;
  await openDialog({
    title: t("keys.new"),
    fields: [...settingFields(null), expiry.element, ...(askOwner ? ownerField() : []), projectField({ ofAll: askOwner })],
    submitLabel: t("keys.create"),
    submit: async (data) => {
      const expiresAt = expiry.value();
      const projectId = data.get("project");
      created = await requestJson("POST", "/api/keys", { body: { ...settings(data), ...(projectId ? { projectId } : {}), ...(expiresAt ? { expiresAt } : {}), ...(askOwner ? { userId: ownerId(data.get("owner")) } : {}) } });
    },
  });
  if (!created) return;
  const { key: text, ...key } = created;
  list.prepend(key);
  await showKey(key, text);
}

/** Shows the text of a new key, which cannot be shown again, and programs that use it. */
async function showKey(key, text) {
  const copyButton = h("button.button.secondary.small", { type: "button", autofocus: true, "aria-label": t("keys.copy"), onclick: (event) => copyText(text, event.currentTarget) }, icon("copy"), t("copy.action"));
  const box = h("span.copyable.framed.new-key", { role: "group", "aria-label": t("keys.text") }, h("code", { "data-created": "key" }, text), copyButton);
  const mayChat = key.operations.length === 0 || key.operations.includes("chat");
  const fields = [h("div.field", {}, h("span.label", {}, t("keys.text")), box)];
  if (mayChat) fields.push(snippets(text, await exampleModel(key.models)));
  await openDialog({ title: t("keys.createdTitle", { name: key.name }), text: t("keys.once"), fields, submitLabel: t("done"), cancelLabel: null, size: "wide" });
}

/** A model that the key may use: its own first model, or one of the deployment that matches a pattern of the key. */
async function exampleModel(patterns) {
  const named = patterns.find((pattern) => !pattern.includes("*"));
  if (named) return named;
  const models = await getJson("/v1/models").then((list) => list.data.map((model) => model.id)).catch(() => []);
  const matches = (model) => patterns.some((pattern) => new RegExp(`^${pattern.split("*").map(escaped).join(".*")}$`).test(model));
  return (patterns.length ? models.find(matches) : models[0]) ?? "MODEL";
}

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
