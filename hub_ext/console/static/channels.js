// Packages are sent one after the other, each as it lies on the disk, and what became of each is said.
"use strict";

(() => {
  const form = document.getElementById("upload");
  if (!form) return;
  const words = JSON.parse(document.getElementById("upload-words").textContent);
  const box = document.getElementById("sending");
  const bar = box.querySelector(".lc-bar");
  const line = document.getElementById("sending-words");
  const said = document.getElementById("sent");
  const button = form.querySelector("button");
  const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

  const share = new Intl.NumberFormat(document.documentElement.lang, { style: "percent" });
  const show = (percent, text) => {
    bar.setAttribute("aria-valuenow", percent);
    bar.querySelector("div").style.width = `${percent}%`;
    line.textContent = text;
  };

  const send = (file) =>
    new Promise((done) => {
      const request = new XMLHttpRequest();
      request.open("PUT", form.dataset.url + encodeURIComponent(file.name));
      request.setRequestHeader("X-XSRFToken", document.getElementById("main").dataset.xsrf);
      request.responseType = "json";
      request.upload.addEventListener("progress", (event) => {
        const percent = Math.round((100 * event.loaded) / (event.total || 1));
        show(percent, fill(percent < 100 ? words.sending : words.checking, { file: file.name, share: share.format(percent / 100) }));
      });
      request.addEventListener("load", () => {
        const answer = request.response ?? {};
        if (request.status < 300) done([true, fill(answer.new ? words.new : words.same, { file: file.name })]);
        else {
          const message = answer.error?.message ?? `HTTP ${request.status}`;
          done([false, fill(words.failed, { file: file.name, message })]);
        }
      });
      request.addEventListener("error", () => done([false, fill(words.unknown, { file: file.name })]));
      request.send(file);
    });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    said.replaceChildren();
    button.disabled = true;
    box.hidden = false;
    let all = true;
    for (const file of document.getElementById("files").files) {
      show(0, fill(words.sending, { file: file.name, share: share.format(0) }));
      const [fine, text] = await send(file);
      const item = document.createElement("li");
      item.className = fine ? "" : "lc-high";
      item.textContent = text;
      said.append(item);
      all &&= fine;
    }
    box.hidden = true;
    button.disabled = false;
    if (all) setTimeout(() => location.reload(), 1500);
  });
})();
