// The room of a course: its rows are brought up to date, searched and chosen.
"use strict";

(() => {
  const form = document.getElementById("room");
  const body = form.querySelector("tbody");
  const search = document.getElementById("room-search");
  const state = document.getElementById("room-state");
  const count = document.getElementById("room-count");
  const EVERY = 5_000;

  const filter = () => {
    const word = search.value.trim().toLowerCase();
    const states = state.value.split(" ");
    let shown = 0;
    for (const row of body.rows) {
      const fits = row.dataset.key.includes(word) && (!state.value || states.includes(row.dataset.state));
      row.hidden = !fits;
      // What is not seen is not acted on.
      if (!fits) row.querySelector("input").checked = false;
      shown += fits;
    }
    const text = count.dataset.words.replace("{shown}", shown).replace("{all}", body.rows.length);
    if (count.textContent !== text) count.textContent = text;
  };

  // Cells are changed where they stand: what is chosen, and where the keyboard is, stays.
  const bring = (html) => {
    const fresh = document.createElement("tbody");
    fresh.innerHTML = html;
    const old = new Map([...body.rows].map((row) => [row.dataset.key, row]));
    let before = null;
    for (const row of [...fresh.rows]) {
      const known = old.get(row.dataset.key);
      if (known) {
        const cells = known.querySelectorAll("[data-cell]");
        row.querySelectorAll("[data-cell]").forEach((cell, at) => {
          if (cells[at].innerHTML !== cell.innerHTML) cells[at].innerHTML = cell.innerHTML;
        });
        known.dataset.state = row.dataset.state;
        old.delete(row.dataset.key);
        before = known;
      } else {
        if (before) before.after(row);
        else body.prepend(row);
        before = row;
      }
    }
    for (const gone of old.values()) gone.remove();
    filter();
  };

  const look = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(form.dataset.rows, {
        credentials: "same-origin",
        redirect: "error",
        headers: { "X-XSRFToken": form.elements._xsrf.value },
        signal: AbortSignal.timeout(15000),
      });
      if (answer.ok) bring((await answer.json()).rows);
    } catch {
      // The next look may find it again; what stands there is some seconds old.
    }
  };

  document.getElementById("room-filter").hidden = false;
  search.addEventListener("input", filter);
  state.addEventListener("change", filter);
  search.addEventListener("keydown", (event) => event.key === "Enter" && event.preventDefault());
  document.getElementById("room-all").addEventListener("click", () => {
    for (const row of body.rows) row.querySelector("input").checked = !row.hidden;
  });
  document.addEventListener("visibilitychange", look);
  setTimeout(look, 1_500);
  setInterval(look, EVERY);
  filter();
})();
