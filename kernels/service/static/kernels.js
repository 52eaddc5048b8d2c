// The page of kernels: search as one types, and changes as they happen.
"use strict";

(() => {
  const list = document.getElementById("kernels");
  const form = document.querySelector(".lc-search");
  const offline = document.getElementById("offline");
  document.documentElement.classList.add("lc-scripted");
  let asked = 0;
  let timer = 0;

  const address = () => {
    const query = new URLSearchParams(new FormData(form));
    if (!query.get("q")) query.delete("q");
    return form.action + (query.size ? `?${query}` : "");
  };

  // The page is asked for anew and its list taken over, so that it is drawn in one place only.
  const refresh = async () => {
    const mine = ++asked;
    const url = address();
    list.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(url, {
        credentials: "same-origin",
        headers: { "X-XSRFToken": list.dataset.xsrf },
        signal: AbortSignal.timeout(15000),
      });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("kernels");
      if (mine !== asked) return;
      // A login that has ended: the hub asks for it on a page of its own.
      if (answer.redirected && !fresh) return void location.reload();
      if (!answer.ok || !fresh) throw new Error(`HTTP ${answer.status}`);
      const open = [...list.querySelectorAll("details")].map((one) => one.open);
      list.replaceChildren(...fresh.childNodes);
      list.querySelectorAll("details").forEach((one, n) => { if (n in open) one.open = open[n]; });
      history.replaceState(null, "", url);
      offline.hidden = true;
    } catch {
      if (mine !== asked) return;
      offline.hidden = false;
      soon(10000);
    } finally {
      if (mine === asked) list.removeAttribute("aria-busy");
    }
  };

  const soon = (delay) => {
    clearTimeout(timer);
    timer = setTimeout(refresh, delay);
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    soon(0);
  });
  form.addEventListener("input", () => soon(200));

  let last = list.dataset.lastEvent;
  const listen = () => {
    const query = new URLSearchParams({ _xsrf: list.dataset.xsrf, last_event_id: last });
    const events = new EventSource(`${list.dataset.events}?${query}`);
    const changed = (event) => {
      last = event.lastEventId || last;
      soon(300);
    };
    for (const kind of ["added", "changed", "removed", "source", "reset"]) events.addEventListener(kind, changed);
    events.addEventListener("hello", () => { offline.hidden = true; });
    events.addEventListener("error", () => {
      offline.hidden = events.readyState === EventSource.OPEN;
      // Refused rather than broken off: the browser does not come back by itself.
      if (events.readyState === EventSource.CLOSED) setTimeout(listen, 10000);
    });
  };
  listen();
})();
