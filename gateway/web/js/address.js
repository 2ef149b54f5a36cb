// The addresses of this site. The pages may be served below a sub-path of a proxy, such as `/stenograph/`, so paths of the
// site are told apart from paths of the origin.

/** The path of the site's root, with a slash at its end. Files are at `<root>assets/<version>/js/address.js`. */
const ROOT = new URL("../../../", import.meta.url).pathname;

/** The path of the origin for a path of the site, which begins with a slash. */
export const sitePath = (path) => ROOT + path.slice(1);

/** The path of the site that the browser shows. */
export const currentPath = () => pathOfLink(location);

/** The path of the site to which a link leads. A link to outside of the sub-path keeps its path. */
export function pathOfLink(link) {
  return link.pathname.startsWith(ROOT) ? `/${link.pathname.slice(ROOT.length)}` : link.pathname;
}

/** True for a link to a page of this site. */
export const isOfSite = (link) => link.origin === location.origin && link.pathname.startsWith(ROOT);

/** The path of a conversation's page. */
export const conversationPath = (id) => `/c/${encodeURIComponent(id)}`;

/** The path of the page of a call. */
export const callPath = (id) => `/calls/${encodeURIComponent(id)}`;
