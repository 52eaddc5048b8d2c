// The console: questions before something is done, doing it, and a board that stays true.
"use strict";

(() => {
  const main = document.getElementById("main");
  const dialog = document.getElementById("confirm");

  // A person's limits: the form's subject is made of their name.
  const person = document.getElementById("person");
  person?.addEventListener("submit", () => {
    const name = document.getElementById("person-name");
    person.elements.subject.value = name.dataset.prefix + name.value.trim();
  });

  // A message to everybody, as it will look.
  const message = document.getElementById("broadcast");
  const preview = () => {
    const kind = message.elements.kind;
    let any = false;
    for (const box of message.querySelectorAll("[data-preview]")) {
      const text = message.elements[box.dataset.preview].value.trim();
      box.hidden = !text;
      box.className = `lc-broadcast lc-broadcast--${kind.value}`;
      box.querySelector("strong").textContent = kind.selectedOptions[0].textContent;
      box.querySelector("span").textContent = text;
      any ||= Boolean(text);
    }
    document.getElementById("preview").hidden = !any;
  };
  message?.addEventListener("input", preview);
  if (message) preview();

  // Reservations: hours of a week that are dragged over fill in the form.
  const plan = document.getElementById("plan");
  const reserve = document.getElementById("reserve");
  if (plan && reserve) {
    const STEP = 30;
    const clock = (minutes) => `${String(Math.floor(minutes / 60)).padStart(2, "0")}:${String(minutes % 60).padStart(2, "0")}`;
    const block = (column, kind, from, to, words) => {
      const one = document.createElement("div");
      one.className = `lc-plan__${kind}`;
      one.style.top = `${(100 * from) / 1440}%`;
      one.style.height = `${(100 * (to - from)) / 1440}%`;
      one.textContent = words;
      column.append(one);
      return one;
    };
    for (const { day, windows } of JSON.parse(plan.dataset.plan)) {
      const column = document.createElement("div");
      column.className = "lc-plan__day";
      column.dataset.name = day.slice(5);
      for (const one of windows) block(column, "busy", one.from, one.to, one.name);
      for (let hour = 3; hour < 24; hour += 3) block(column, "hour", hour * 60, hour * 60, clock(hour * 60));
      const at = (event) => {
        const box = column.getBoundingClientRect();
        return Math.min(1440, Math.max(0, ((event.clientY - box.top) / box.height) * 1440));
      };
      column.addEventListener("pointerdown", (down) => {
        if (down.button) return;
        down.preventDefault();
        column.setPointerCapture(down.pointerId);
        plan.querySelector(".lc-plan__chosen")?.remove();
        const begin = Math.floor(at(down) / STEP) * STEP;
        const chosen = block(column, "chosen", begin, begin + STEP, "");
        let from = begin, to = begin + STEP;
        const move = (event) => {
          const now = at(event);
          from = Math.min(begin, Math.floor(now / STEP) * STEP);
          to = Math.max(begin + STEP, Math.ceil(now / STEP) * STEP);
          chosen.style.top = `${(100 * from) / 1440}%`;
          chosen.style.height = `${(100 * (to - from)) / 1440}%`;
          chosen.textContent = `${clock(from)}–${clock(to)}`;
        };
        const end = () => {
          column.removeEventListener("pointermove", move);
          reserve.elements.starts.value = `${day}T${clock(from)}`;
          reserve.elements.duration.value = `${to - from}m`;
          reserve.elements.timezone.value = plan.dataset.zone;
          reserve.elements.name.focus();
        };
        move(down);
        column.addEventListener("pointermove", move);
        column.addEventListener("pointerup", end, { once: true });
      });
      plan.append(column);
    }
  }

  document.querySelector("[data-print]")?.addEventListener("click", () => print());

  if (!dialog) return;
  const words = JSON.parse(document.getElementById("console-words").textContent);
  const trouble = document.getElementById("trouble");
  let wanted = null;

  const ask = (path, options = {}) =>
    fetch(path, {
      credentials: "same-origin",
      redirect: "error",
      signal: AbortSignal.timeout(30000),
      ...options,
      headers: { "X-XSRFToken": main.dataset.xsrf, ...options.headers },
    });

  const complain = (message) => {
    trouble.querySelector("p").textContent = message;
    trouble.hidden = false;
    trouble.focus();
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-post]");
    if (!button) return;
    wanted = { ...button.dataset, id: button.id };
    document.getElementById("confirm-title").textContent = wanted.title;
    document.getElementById("confirm-text").textContent = wanted.text;
    document.getElementById("confirm-yes").textContent = wanted.yes;
    for (const part of dialog.querySelectorAll("[data-ask]")) part.hidden = part.dataset.ask !== wanted.ask;
    dialog.returnValue = "";
    dialog.showModal();
  });

  dialog.addEventListener("close", async () => {
    if (dialog.returnValue !== "yes" || !wanted) return;
    const body = JSON.parse(wanted.body ?? "{}");
    if (wanted.ask) body[wanted.ask] = document.getElementById(`ask-${wanted.ask}`).value;
    trouble.hidden = true;
    try {
      const answer = await ask(main.dataset.api + wanted.post, {
        method: wanted.method ?? "POST",
        body: wanted.method === "DELETE" ? undefined : JSON.stringify(body),
        headers: { "Content-Type": "application/json" },
      });
      if (answer.ok) {
        // Done, but less than was asked for: what the answer says stays to be read.
        const { message } = await answer.json().catch(() => ({}));
        if (document.querySelector("[data-live]")) await refresh();
        else location.reload();
        if (message) complain(message);
      } else if (answer.status === 401) complain(words.signedOut);
      else {
        const error = (await answer.json().catch(() => ({}))).error;
        complain(words.failed.replace("{message}", error?.message ?? `HTTP ${answer.status}`));
      }
    } catch {
      // No answer says nothing about what was done: show what is true now.
      try {
        if (document.querySelector("[data-live]")) await refresh();
      } finally {
        complain(words.unknown);
      }
    }
  });

  // -- the board: the page asks for itself and takes over what has changed ---------------------
  const board = document.querySelector("[data-live]");
  if (!board) return;
  let heard = new Date();
  let shown = board.innerHTML; // as it came

  // What a GPU has done since the page is open: a line of its last minutes.
  const POINTS = 60;
  const SVG = "http://www.w3.org/2000/svg";
  const lines = new Map();
  const spark = () => {
    const seen = new Set();
    for (const place of board.querySelectorAll("[data-spark]")) {
      const { spark: id, value } = place.dataset;
      const line = [...(lines.get(id) ?? []), Number(value)].slice(-POINTS);
      lines.set(id, line);
      seen.add(id);
      const svg = document.createElementNS(SVG, "svg");
      svg.setAttribute("viewBox", `0 0 ${POINTS - 1} 20`);
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("class", "lc-spark");
      svg.setAttribute("aria-hidden", "true");
      const drawn = document.createElementNS(SVG, "polyline");
      const from = POINTS - line.length;
      drawn.setAttribute("points", line.map((one, n) => `${from + n},${19 - (18 * Math.min(100, one)) / 100}`).join(" "));
      svg.append(drawn);
      place.replaceChildren(svg);
    }
    for (const id of lines.keys()) if (!seen.has(id)) lines.delete(id);
  };
  spark();

  const take = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html").querySelector("[data-live]");
    if (!fresh || fresh.innerHTML === shown) return;
    shown = fresh.innerHTML;
    const open = [...board.querySelectorAll("details[open]")].map((one) => one.id);
    const focused = board.contains(document.activeElement) ? document.activeElement.id : "";
    const scrolled = [...board.querySelectorAll(".lc-table-box")].map((box) => box.scrollLeft);
    const chosen = [...board.querySelectorAll("input[name=who]:checked")].map((one) => one.value);
    for (const value of chosen) fresh.querySelector(`input[name=who][value="${CSS.escape(value)}"]`)?.setAttribute("checked", "");
    for (const id of open) fresh.querySelector(`#${CSS.escape(id)}`)?.setAttribute("open", "");
    board.replaceChildren(...fresh.childNodes);
    board.querySelectorAll(".lc-table-box").forEach((box, n) => (box.scrollLeft = scrolled[n] ?? 0));
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  };

  const refresh = async () => {
    const answer = await ask(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) throw new Error(answer.status);
    take(await answer.text());
    spark();
    heard = new Date();
  };

  setInterval(async () => {
    // What somebody reads or marks is not taken away under their hands.
    if (document.hidden || dialog.open || String(getSelection())) return;
    try {
      await refresh();
      if (trouble.dataset.stale) {
        trouble.hidden = true;
        delete trouble.dataset.stale;
      }
    } catch {
      if (Date.now() - heard < 30000) return;
      trouble.dataset.stale = "yes";
      trouble.querySelector("p").textContent = words.stale.replace("{time}", heard.toLocaleTimeString(document.documentElement.lang, { hourCycle: "h23" }));
      trouble.hidden = false;
    }
  }, 1000 * (board.dataset.live || 5));
})();
