// Stopping, cancelling, deleting and adding servers through the hub's REST API.
"use strict";

(() => {
  const frame = document.querySelector("[data-servers]");
  const words = JSON.parse(document.getElementById("server-words").textContent);
  const dialog = document.getElementById("confirm");
  const trouble = document.getElementById("trouble");
  let wanted = null;

  const ask = (url, method, body) =>
    fetch(url, {
      method,
      body: body && JSON.stringify(body),
      credentials: "same-origin",
      headers: { "X-XSRFToken": frame.dataset.xsrf, "Content-Type": "application/json" },
      signal: AbortSignal.timeout(30000),
    });

  // No answer says nothing about what was done: with the container the browser's own network may
  // have changed. Look what became of the server; true: it is gone, or on its way.
  const LOOKS = 12;
  const became = async (url, remove) => {
    for (let n = 0; n < LOOKS; n++) {
      await new Promise((resolve) => setTimeout(resolve, 1500));
      try {
        const answer = await ask(url, "GET");
        if (answer.status === 404) return true;
        if (!answer.ok) continue;
        const server = await answer.json();
        if (server.pending === "stop" || (!remove && !server.ready && !server.pending)) return true;
        return false;
      } catch {
        // Not yet.
      }
    }
    throw new Error(words.unknown);
  };

  const end = async (url, remove) => {
    for (let again = false; ; again = true) {
      let answer;
      try {
        answer = await ask(url, "DELETE", { remove });
      } catch {
        if (await became(url, remove)) return;
        // It did not reach the hub: once more, which does no harm.
        if (!again) continue;
        throw new Error(words.unknown);
      }
      // 404: it is gone already, which is what was wanted.
      if (answer.ok || answer.status === 404) return;
      const body = await answer.json().catch(() => ({}));
      throw new Error(words.failed.replace("%s", body.message || `HTTP ${answer.status}`));
    }
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-delete]");
    if (!button) return;
    wanted = button;
    document.getElementById("confirm-title").textContent = button.dataset.title;
    document.getElementById("confirm-text").textContent = button.dataset.text;
    document.getElementById("confirm-yes").textContent = button.dataset.yes;
    dialog.returnValue = "";
    dialog.showModal();
  });

  dialog.addEventListener("close", async () => {
    if (dialog.returnValue !== "yes") return;
    wanted.disabled = true;
    try {
      await end(wanted.dataset.delete, "remove" in wanted.dataset);
      location.assign(wanted.dataset.then);
    } catch (error) {
      wanted.disabled = false;
      trouble.querySelector("p").textContent = error.message;
      trouble.hidden = false;
      trouble.focus();
    }
  });

  document.getElementById("add-server")?.addEventListener("submit", (event) => {
    // The address is made of the name.
    const form = event.target;
    form.action = new URL(encodeURIComponent(form.elements.name.value), form.action.replace(/[^/]*$/, ""));
  });

  // A server on its way up or down changes by itself: look again soon.
  if (frame.dataset.servers === "moving" && !document.querySelector("[data-progress]")) {
    setInterval(() => dialog.open || location.reload(), 3000);
  }
})();
