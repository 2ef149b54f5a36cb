// Sets the theme and the language before the first paint, so that the page never flashes in the wrong ones.
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
    // Storage may be forbidden: then the theme of the system and English are used.
  }
})();
