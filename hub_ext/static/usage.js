// “My servers”: what running servers use now, and news that have been read.
"use strict";

(() => {
  const words = JSON.parse(document.getElementById("usage-words").textContent);
  const frame = document.querySelector("[data-servers]");
  const places = [...document.querySelectorAll("[data-usage]")];
  const EVERY = 10_000;
  const GIB = 2 ** 30;

  const ask = (url, body) =>
    fetch(url, {
      method: body ? "POST" : "GET",
      body: body && JSON.stringify(body),
      credentials: "same-origin",
      redirect: "error",
      headers: { "X-XSRFToken": frame.dataset.xsrf, "Content-Type": "application/json" },
      signal: AbortSignal.timeout(15000),
    });

  const size = (bytes) =>
    bytes >= GIB / 10 ? `${(bytes / GIB).toFixed(1)} GiB` : `${Math.round(bytes / 2 ** 20)} MiB`;
  const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const left = (until) => {
    const minutes = Math.max(0, Math.round((new Date(until) - Date.now()) / 60000));
    return fill(minutes < 60 ? words.minutes : words.hours, { hours: Math.floor(minutes / 60), minutes: minutes % 60 });
  };

  const row = (name, value, part, high) => {
    const line = document.createElement("div");
    const label = Object.assign(document.createElement("span"), { textContent: name });
    const text = Object.assign(document.createElement("span"), { className: "lc-number", textContent: value });
    line.append(label, text);
    if (part !== null) {
      const meter = Object.assign(document.createElement("meter"), { min: 0, max: 1, high: high ?? 1, value: part });
      meter.setAttribute("aria-label", name);
      meter.setAttribute("aria-valuetext", value);
      line.append(meter);
      if (high && part >= high) {
        line.classList.add("lc-high");
        line.append(Object.assign(document.createElement("span"), { className: "lc-note", textContent: words.high }));
      }
    }
    return line;
  };

  const share = (one) => (one.limit ? Math.min(1, one.used / one.limit) : null);
  const draw = (place, found, high) => {
    const rows = [];
    const bytes = (one) => fill(words.of, { used: size(one.used), limit: one.limit ? size(one.limit) : "–" });
    if (found.memory) rows.push(row(words.memory, bytes(found.memory), share(found.memory), high));
    if (found.cpu) {
      const value = fill(words.cores, { used: found.cpu.used.toFixed(1), limit: found.cpu.limit ?? "–" });
      rows.push(row(words.cpu, value, share(found.cpu)));
    }
    if (found.gpu_percent !== null)
      rows.push(row(words.gpu, `${Math.round(found.gpu_percent)} %`, found.gpu_percent / 100));
    if (found.disk) rows.push(row(words.disk, bytes(found.disk), share(found.disk), high));
    if (found.ends_at) rows.push(row(words.left, left(found.ends_at), null));
    place.replaceChildren(...rows);
  };

  const look = async () => {
    if (document.hidden) return;
    try {
      const answer = await ask(words.url);
      if (!answer.ok) return;
      const { servers, high } = await answer.json();
      for (const place of places) {
        const found = servers[place.dataset.usage];
        if (found) draw(place, found, high);
        else place.replaceChildren();
      }
    } catch {
      // The next look may find it again; what stands there is some seconds old.
    }
  };
  if (places.length) {
    look();
    setInterval(look, EVERY);
    document.addEventListener("visibilitychange", look);
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-seen]");
    if (!button) return;
    button.disabled = true;
    try {
      const answer = await ask(words.seen, { ids: [Number(button.dataset.seen)] });
      if (!answer.ok) throw new Error(answer.status);
      const box = button.closest("[data-notice]");
      const next = box.nextElementSibling?.querySelector("button, a") ?? document.getElementById("start");
      box.remove();
      next?.focus();
    } catch {
      button.disabled = false;
    }
  });

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-keep]");
    if (!button) return;
    button.disabled = true;
    try {
      const answer = await ask(words.keep, { server: button.dataset.keep });
      if (answer.ok) return location.reload();
      const { message } = await answer.json().catch(() => ({}));
      throw new Error(message ?? answer.status);
    } catch (error) {
      button.disabled = false;
      const trouble = document.getElementById("trouble");
      trouble.querySelector("p").textContent = error.message;
      trouble.hidden = false;
      trouble.focus();
    }
  });
})();
