// Stopping, cancelling, deleting and adding servers through the hub's REST API.
"use strict";

(() => {
  const frame = document.querySelector("[data-servers]");
  const words = JSON.parse(document.getElementById("server-words").textContent);
  const dialog = document.getElementById("confirm");
  const trouble = document.getElementById("trouble");
  let wanted = null;

  const end = async (url, remove) => {
    const answer = await fetch(url, {
      method: "DELETE",
      body: JSON.stringify({ remove }),
      credentials: "same-origin",
      headers: { "X-XSRFToken": frame.dataset.xsrf, "Content-Type": "application/json" },
      signal: AbortSignal.timeout(30000),
    });
    // 404: it is gone already, which is what was wanted.
    if (answer.ok || answer.status === 404) return;
    const body = await answer.json().catch(() => ({}));
    throw new Error(body.message || `HTTP ${answer.status}`);
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
      trouble.querySelector("p").textContent = words.failed.replace("%s", error.message);
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
