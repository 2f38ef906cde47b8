// Runs before the first paint, so that the theme does not flash. `?theme=` wins over the stored choice, and that over the system.
(function () {
  var asked = new URLSearchParams(location.search).get('theme');
  var kept = null;
  try {
    kept = localStorage.getItem('tollgate.theme');
  } catch (closed) {
    // Storage may be switched off; the system's choice is good enough then.
  }
  var theme = asked || kept;
  if (theme === 'dark' || theme === 'light') document.documentElement.dataset.theme = theme;
})();
