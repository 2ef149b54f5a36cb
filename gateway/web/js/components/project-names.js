// The names of projects, for pages that show projects of which they have the ids.

import { getJson } from "../api.js";

const projects = new Map();
let request = null;

/** The name of a project, or the id if the name is not loaded. */
export const projectName = (id) => projects.get(id)?.name ?? id;

/** The loaded projects: pairs of id and name. */
export const knownProjects = () => [...projects].map(([id, { name }]) => [id, name]);

/** The loaded projects in which keys can be issued. */
export const openProjects = () => [...projects.values()].filter((project) => !project.disabled);

export function noteProject(project) {
  projects.set(project.id, project);
}

/** Loads the first 100 projects, of the user or with `ofAll` of all users. Projects that are not loaded are shown by id. */
export function loadProjects({ ofAll = false } = {}) {
  request ??= getJson(ofAll ? "/api/admin/projects" : "/api/projects", ofAll ? { limit: 100 } : {})
    .then((page) => page.data.forEach(noteProject))
    .catch(() => {})
    // A project may be changed at any time, so the projects are read again by the next page.
    .finally(() => { request = null; });
  return request;
}
