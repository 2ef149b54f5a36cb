//! The files of the web pages, compiled into the program, and the content type of each file.

/// The HTML shell, served on every page path. `{{assets}}` is replaced by the path prefix of the files.
pub(super) const SHELL: &str = include_str!("../../../web/index.html");

/// The path of the styles of all pages in one file, so that a page waits for one request.
pub(super) const ALL_STYLES: &str = "all.css";

/// The styles in the order in which they apply.
pub(super) const STYLES: [&[u8]; 6] = [
    include_bytes!("../../../web/css/tokens.css"),
    include_bytes!("../../../web/css/base.css"),
    include_bytes!("../../../web/vendor/uplot-1.6.32/uPlot.min.css"),
    include_bytes!("../../../web/css/shell.css"),
    include_bytes!("../../../web/css/chat.css"),
    include_bytes!("../../../web/css/pages.css"),
];

/// Includes the listed files of `gateway/web`. A test checks that the list is complete.
macro_rules! files {
    ($($path:literal,)*) => {
        /// All files that pages load: path below `gateway/web`, and content.
        pub(super) const FILES: &[(&str, &[u8])] = &[$(($path, include_bytes!(concat!("../../../web/", $path)))),*];
    };
}

files! {
    "css/base.css",
    "css/chat.css",
    "css/pages.css",
    "css/shell.css",
    "css/tokens.css",
    "icon.svg",
    "icons.svg",
    "js/active-chats.js",
    "js/address.js",
    "js/answer-stream.js",
    "js/api.js",
    "js/chat-stream.js",
    "js/components/audit.js",
    "js/components/calls.js",
    "js/components/chart.js",
    "js/components/composer.js",
    "js/components/conversation-list.js",
    "js/components/filters.js",
    "js/components/follow-scroll.js",
    "js/components/key-names.js",
    "js/components/keys.js",
    "js/components/limits.js",
    "js/components/markdown.js",
    "js/components/paged-list.js",
    "js/components/project-names.js",
    "js/components/projects.js",
    "js/components/prose.js",
    "js/components/shell.js",
    "js/components/snippets.js",
    "js/components/turn-view.js",
    "js/components/ui.js",
    "js/components/usage-tables.js",
    "js/components/usage.js",
    "js/components/user-names.js",
    "js/components/waterfall.js",
    "js/csv.js",
    "js/dom.js",
    "js/i18n.js",
    "js/live.js",
    "js/locales/en.js",
    "js/locales/record.js",
    "js/locales/record/en.js",
    "js/locales/record/zh.js",
    "js/locales/zh.js",
    "js/main.js",
    "js/markdown-chunks.js",
    "js/navigation.js",
    "js/pages/admin.js",
    "js/pages/call.js",
    "js/pages/chat.js",
    "js/pages/login.js",
    "js/pages/settings.js",
    "js/query.js",
    "js/render-queue.js",
    "js/router.js",
    "js/server-sent-events.js",
    "js/session.js",
    "js/storage.js",
    "js/theme-choice.js",
    "js/theme.js",
    "js/turns.js",
    "js/usage-range.js",
    "vendor/dompurify-3.4.18/LICENSE",
    "vendor/dompurify-3.4.18/LICENSE-MPL",
    "vendor/dompurify-3.4.18/purify.min.js",
    "vendor/marked-18.2.1/LICENSE",
    "vendor/marked-18.2.1/marked.esm.js",
    "vendor/uplot-1.6.32/LICENSE",
    "vendor/uplot-1.6.32/uPlot.esm.js",
    "vendor/uplot-1.6.32/uPlot.min.css",
}

/// The content type that goes with a path's ending.
pub(super) fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "css" => "text/css; charset=utf-8",
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        "webmanifest" => "application/manifest+json",
        // Licences of what is vendored.
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write as _;
    use std::path::{Path, PathBuf};

    use sha2::{Digest as _, Sha256};

    use super::*;

    fn web() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("web")
    }

    fn below(directory: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
    }

    fn on_disk() -> BTreeSet<String> {
        let web = web();
        let names = below(&web).into_iter().map(|path| path.strip_prefix(&web).unwrap().to_str().unwrap().to_owned());
        names.filter(|name| !matches!(name.as_str(), "index.html" | "vendor/README.md")).collect()
    }

    fn sha256(content: &[u8]) -> String {
        Sha256::digest(content).iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    #[test]
    fn every_file_is_served() {
        let listed: BTreeSet<String> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(listed, on_disk());
        assert_eq!(listed.len(), FILES.len());
    }

    #[test]
    fn vendored_files_are_what_was_published() {
        let readme = std::fs::read_to_string(web().join("vendor/README.md")).unwrap();
        let rows = readme.lines().filter(|line| line.starts_with("| `"));
        let recorded: BTreeMap<String, String> = rows
            .map(|row| {
                let cells: Vec<_> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
                (format!("vendor/{}", cells[1]), cells[2].to_owned())
            })
            .collect();
        let vendored = FILES.iter().filter(|(path, _)| path.starts_with("vendor/"));
        let found: BTreeMap<_, _> = vendored.map(|(path, content)| ((*path).to_owned(), sha256(content))).collect();
        assert!(found.len() > 3);
        assert_eq!(recorded, found);
    }

    #[test]
    fn our_own_files_name_no_other_host() {
        for (path, content) in FILES.iter().filter(|(path, _)| !path.starts_with("vendor/")) {
            let text = std::str::from_utf8(content).unwrap();
            let without = text.replace("http://www.w3.org/", "").replace("https?:", "");
            assert!(!without.contains("http://") && !without.contains("https://"), "{path}");
        }
    }

    #[test]
    fn our_own_scripts_never_read_html() {
        let sinks =
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "setHTML"];
        for (path, content) in FILES.iter().filter(|(path, _)| path.starts_with("js/")) {
            let text = std::str::from_utf8(content).unwrap();
            for sink in sinks {
                assert!(!text.contains(sink), "{path} uses {sink}");
            }
        }
    }
}
