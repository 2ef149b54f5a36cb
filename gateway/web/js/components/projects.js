// Projects: those of the current user, with their usage; for admins all projects, and the dialogs that create and change them.

import { requestJson } from "../api.js";
import { h, icon, replaceChildren } from "../dom.js";
import { formatDateTime, t } from "../i18n.js";
import { keyName, noteKeyNames } from "./key-names.js";
import { listSection, PagedList } from "./paged-list.js";
import { noteProject } from "./project-names.js";
import { field, openDialog, toast } from "./ui.js";
import { UsageView } from "./usage.js";
import { knownUsers, loadUserNames, userName } from "./user-names.js";

/** The section of the projects of the current user, or with `ofAll` of all projects, which can be changed. */
export function projectSection({ ofAll = false } = {}) {
  // One view at a time is open, because a view has the only range of days in the address of the page.
  const opened = { close: null };
  const list = new PagedList({
    path: ofAll ? "/api/admin/projects" : "/api/projects",
    empty: t(ofAll ? "projects.noneOfAll" : "projects.none"),
    before: ofAll ? loadUserNames : undefined,
    row: (project) => projectRow(project, { ofAll, opened }),
  });
  const create = ofAll ? h("button.button.primary", { type: "button", onclick: () => createProject(list) }, icon("plus"), t("projects.new")) : null;
  const { element, destroy } = listSection({ id: "projects-title", title: t("projects.title"), intro: t(ofAll ? "projects.introOfAll" : "projects.intro"), controls: create, list });
  return { element, destroy: () => { destroy(); opened.close?.(); } };
}

function projectRow(project, { ofAll, opened }) {
  noteProject(project);
  const row = h("li.row.project", { "data-project": project.id });
  const usageArea = h("div.project-usage", {});
  let view = null;
  const render = () => {
    const label = (action) => `${t(action)}: ${project.name}`;
    const button = (action, onclick, attributes = {}) => h("button.button.secondary.small", { type: "button", "aria-label": label(action), onclick, ...attributes }, t(action));
    replaceChildren(row,
      h("div.row-head", {}, h("div.row-main", {}, h("strong", {}, project.name), project.disabled ? h("span.badge.bad", {}, t("projects.disabled")) : null,
        h("span.row-details", {}, [t("projects.memberCount", { n: project.members.length }), t("projects.changed", { when: formatDateTime(project.changedAt) })].join(" · ")),
        ofAll && project.members.length ? h("span.row-details", {}, project.members.map(userName).join(", ")) : null),
      h("div.row-buttons", {},
        button("projects.usage", toggleUsage, { "aria-expanded": String(view !== null) }),
        ofAll ? button("projects.change", change) : null,
        ofAll ? button(project.disabled ? "projects.enable" : "projects.disable", setDisabled) : null)),
      usageArea);
  };
  function showView(next) {
    view = next;
    replaceChildren(usageArea, view?.element);
    row.querySelector("[aria-expanded]").setAttribute("aria-expanded", String(view !== null));
  }
  function closeUsage() {
    view.destroy();
    showView(null);
    opened.close = null;
  }
  function toggleUsage() {
    const wasOpen = view !== null;
    opened.close?.();
    if (!wasOpen) {
      const byUser = { by: "user", name: userName };
      const loadKeys = () => noteKeyNames(`/api/projects/${encodeURIComponent(project.id)}/keys`);
      showView(new UsageView({ path: `/api/projects/${encodeURIComponent(project.id)}/usage`, groups: [...(ofAll ? [byUser] : []), { by: "model" }, { by: "key", name: keyName, loadNames: loadKeys }] }));
      opened.close = closeUsage;
    }
  }
  async function send(body) {
    Object.assign(project, await requestJson("PATCH", `/api/admin/projects/${encodeURIComponent(project.id)}`, { body }));
    noteProject(project);
    render();
  }
  async function change() {
    await openDialog({ title: t("projects.changeTitle"), fields: settingFields(project), submitLabel: t("save"), submit: (data) => send(settings(data)) });
  }
  async function setDisabled() {
    const disabled = !project.disabled;
    if (disabled && !(await openDialog({ title: t("projects.disableTitle", { name: project.name }), text: t("projects.disableText"), submitLabel: t("projects.disable"), kind: "danger" }))) return;
    try {
      await send({ disabled });
    } catch (error) {
      toast(error.message);
    }
  }
  render();
  return row;
}

function settingFields(project) {
  const members = h("textarea.input", { name: "members", rows: 5, spellcheck: "false", autocapitalize: "off", value: (project?.members ?? []).map(userName).join("\n") });
  return [
    field("name", t("projects.name"), { required: true, maxlength: 100, autocomplete: "off", value: project?.name ?? "" }),
    field("members", t("projects.members"), { input: members, hint: t("projects.membersHint") }),
  ];
}

/** The settings that the fields hold. A member is a name from the list of users, or an id. */
function settings(data) {
  const texts = data.get("members").split("\n").map((text) => text.trim()).filter(Boolean);
  const idOf = (text) => knownUsers().find(([id, name]) => id === text || name === text)?.[0] ?? text;
  return { name: data.get("name").trim(), members: texts.map(idOf) };
}

async function createProject(list) {
  let created = null;
  await openDialog({
    title: t("projects.new"),
    fields: settingFields(null),
    submitLabel: t("projects.create"),
    submit: async (data) => {
      created = await requestJson("POST", "/api/admin/projects", { body: settings(data) });
    },
  });
  if (created) list.prepend(created);
}
