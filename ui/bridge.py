"""Everything of NiceGUI's bridge that its documentation does not promise, in one place.

``window.socket`` (the Socket.IO client) exists only after the root component is mounted; its connect
and disconnect tell whether a page is live. tests/ui hold this contract.
"""

from __future__ import annotations

#: Feeds [data-testid=connection-state] and tells components by the window event "muster:connected".
CONNECTION_SCRIPT = """
<script>
(() => {
  const words = {live: "Live", reconnecting: "Reconnecting", offline: "Offline", syncing: "Syncing"};
  let state = "reconnecting", timer = 0;
  const show = (next) => {
    state = next;
    for (const e of document.querySelectorAll("[data-testid=connection-state]")) {
      e.dataset.state = next;
      if (e.textContent !== words[next]) e.textContent = words[next];
    }
  };
  const down = () => {
    clearTimeout(timer);
    show(navigator.onLine ? "reconnecting" : "offline");
    timer = setTimeout(() => { if (state !== "live") show("offline"); }, 10000);
  };
  // Whoever has to catch up says so by preventDefault(), and "muster:synced" when it has.
  const up = () => {
    clearTimeout(timer);
    show(window.dispatchEvent(new Event("muster:connected", {cancelable: true})) ? "live" : "syncing");
  };
  window.addEventListener("muster:synced", () => { if (state === "syncing") show("live"); });
  // A socket is refused without a reason; if it is the log-in that has ended, loading anew leads there.
  const refused = async () => {
    const answer = await fetch("/api/v1/me").catch(() => null);
    if (answer && answer.status === 401) window.location.reload();
  };
  const wait = () => {
    if (!window.socket) return void setTimeout(wait, 20);
    window.socket.on("connect", up);
    window.socket.on("connect_error", refused);
    window.socket.on("disconnect", down);
    if (window.socket.connected) up();
  };
  wait();
  window.addEventListener("offline", down);
  window.addEventListener("online", () => { if (window.socket && window.socket.connected) up(); });
  // The element may be mounted after the state is known.
  new MutationObserver(() => show(state)).observe(document.documentElement, {childList: true, subtree: true});
})();
</script>
"""

#: Light or dark by choice, kept in this browser; without a choice the system's.
THEME_SCRIPT = """
<script>
(() => {
  const root = document.documentElement;
  let kept = null;
  try { kept = localStorage.getItem("muster-theme"); } catch (e) {}
  if (kept) root.dataset.theme = kept;
  const paint = (n = 0) => {
    if (!kept) return;
    if (window.Quasar && window.Quasar.Dark && document.body) window.Quasar.Dark.set(kept === "dark");
    else if (n < 200) setTimeout(() => paint(n + 1), 25);
  };
  paint();
  window.musterToggleTheme = () => {
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    kept = root.dataset.theme = isDark ? "light" : "dark";
    try { localStorage.setItem("muster-theme", kept); } catch (e) {}
    paint();
  };
})();
</script>
"""
