// Every page: the language switch, and questions before something is ended.
"use strict";

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-language]");
  if (!button) return;
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie =
    `${button.dataset.cookie}=${button.dataset.language}.new; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
  // A page that answered a form is asked for anew: reloading it would send the form again.
  if (document.documentElement.dataset.method === "POST") location.replace(location.href);
  else location.reload();
});

// Times in sentences are the reader's own. Those of a page that was made before the hub knew the
// reader's time zone, or in another, are written anew.
{
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "UTC";
  if (!document.cookie.split("; ").includes(`labcommons-tz=${zone}`)) {
    const form = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
    for (const time of document.querySelectorAll("time[datetime]"))
      time.textContent = new Date(time.dateTime).toLocaleString(document.documentElement.lang, form);
  }
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `labcommons-tz=${zone}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
}

// On a phone a table's rows stand below each other, each cell with the heading of its column.
{
  const label = () => {
    for (const table of document.querySelectorAll(".lc-table")) {
      const headings = [...table.querySelectorAll("thead th")].map((one) =>
        one.querySelector(".visually-hidden") ? "" : one.textContent.trim());
      for (const row of table.tBodies[0]?.rows ?? [])
        [...row.cells].forEach((cell, at) => headings[at] && cell.tagName === "TD" && (cell.dataset.label = headings[at]));
    }
  };
  label();
  new MutationObserver(label).observe(document.body, { childList: true, subtree: true });
}

// A form is sent once; coming back with the browser's back button allows it again.
document.addEventListener("submit", (event) => {
  const button = event.target.querySelector("button[type=submit][data-busy]");
  if (!button || event.defaultPrevented) return;
  if (button.getAttribute("aria-busy") === "true") {
    event.preventDefault();
    return;
  }
  button.setAttribute("aria-busy", "true");
  const words = button.querySelector("[data-words]");
  words.dataset.idle = words.textContent;
  words.textContent = button.dataset.busy;
});

window.addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  for (const button of document.querySelectorAll("button[aria-busy=true]")) {
    button.removeAttribute("aria-busy");
    const words = button.querySelector("[data-words]");
    words.textContent = words.dataset.idle;
  }
});

// Messages to everybody: those of the page, then as the hub says while somebody looks. What the
// person has closed stays closed in this browser.
{
  const place = document.getElementById("lc-broadcasts");
  const KEY = "labcommons-broadcasts";
  const EVERY = 10_000; // milliseconds
  const closed = () => {
    try {
      return new Set(JSON.parse(localStorage.getItem(KEY) ?? "[]"));
    } catch {
      return new Set();
    }
  };
  const close = (id) => {
    try {
      localStorage.setItem(KEY, JSON.stringify([...closed(), id].slice(-50)));
    } catch {
      // Without storage it comes back on the next page.
    }
  };
  let shown = [...place.children].map((one) => JSON.parse(one.dataset.shown));
  let drawn = "";
  const bar = (one) => {
    const box = document.createElement("div");
    box.className = `lc-broadcast lc-broadcast--${one.kind}`;
    box.dataset.broadcast = one.id;
    const line = document.createElement("p");
    line.append(Object.assign(document.createElement("strong"), { textContent: one.title }));
    for (const text of [one.text, one.more].filter(Boolean))
      line.append(" ", Object.assign(document.createElement("span"), { textContent: text }));
    box.append(line);
    if (one.dismissible) {
      const button = Object.assign(document.createElement("button"), { type: "button", className: "btn-close", title: one.close });
      button.setAttribute("aria-label", one.close);
      box.append(button);
    }
    return box;
  };
  const draw = () => {
    const gone = closed();
    const now = Date.now();
    const open = shown.filter((one) =>
      !(one.dismissible && gone.has(one.id)) && !(one.ends_at && Date.parse(one.ends_at) <= now));
    if (JSON.stringify(open) === drawn) return;
    drawn = JSON.stringify(open);
    place.replaceChildren(...open.map(bar));
  };
  const look = async () => {
    if (document.hidden) return;
    try {
      const address = `${place.dataset.url}?lang=${document.documentElement.lang}`;
      const answer = await fetch(address, { credentials: "same-origin", redirect: "error", signal: AbortSignal.timeout(EVERY) });
      if (answer.ok) shown = (await answer.json()).broadcasts;
    } catch {
      // What is known stays, until its end.
    }
    draw();
  };
  place.addEventListener("click", (event) => {
    const button = event.target.closest(".btn-close");
    if (!button) return;
    close(button.closest("[data-broadcast]").dataset.broadcast);
    draw();
  });
  draw();
  look();
  setInterval(look, EVERY);
  document.addEventListener("visibilitychange", look);
}

document.querySelector("[data-focus]")?.focus();
