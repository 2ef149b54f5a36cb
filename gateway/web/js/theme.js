// Runs before anything is painted, so that the page never flashes in the wrong colours or language.
(function () {
  var root = document.documentElement;
  try {
    var theme = localStorage.getItem("stenograph.theme");
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    var chosen = localStorage.getItem("stenograph.language");
    var wanted = chosen ? [chosen] : navigator.languages || [navigator.language];
    for (var i = 0; i < wanted.length; i++) {
      var tag = String(wanted[i]).toLowerCase();
      if (tag.indexOf("zh") === 0) { root.lang = "zh-Hans"; break; }
      if (tag.indexOf("en") === 0) { root.lang = "en"; break; }
    }
  } catch (_) {
    // Storage may be forbidden: then the page is as it comes.
  }
})();
