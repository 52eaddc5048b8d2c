// The progress page: the hub's event stream as a bar and a list of steps.
"use strict";

(() => {
  const page = document.querySelector("[data-progress]");
  const words = JSON.parse(document.getElementById("progress-words").textContent);
  const bar = document.getElementById("bar");
  const percent = document.getElementById("percent");
  const steps = document.getElementById("steps");
  const elapsed = document.getElementById("elapsed");
  const began = Date.now() - Number(page.dataset.elapsed) * 1000;

  const tick = () => {
    const seconds = Math.max(0, Math.floor((Date.now() - began) / 1000));
    elapsed.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  };
  tick();
  const clock = setInterval(tick, 1000);

  const advance = (value) => {
    const whole = Math.min(100, Math.max(0, Math.round(value)));
    bar.setAttribute("aria-valuenow", whole);
    bar.firstElementChild.style.width = `${whole}%`;
    percent.textContent = `${whole} %`;
  };

  const say = (text) => {
    const item = document.createElement("li");
    item.textContent = text;
    steps.append(item);
  };

  // The hub's own few sentences are English; ours come in the person's language.
  const translated = (text) => words.known[text] ?? text;

  // -- the queue: one place that is kept up to date, not a step for each news -------------------
  const queue = document.getElementById("queue");
  const heading = document.getElementById("heading");
  const text = (id, value) => {
    const place = document.getElementById(id);
    if (place.textContent !== value) place.textContent = value;
  };
  const whenStarts = (seconds) => {
    const at = new Date(seconds * 1000);
    const today = at.toDateString() === new Date().toDateString();
    return at.toLocaleString(document.documentElement.lang, {
      ...(today ? {} : { weekday: "short", month: "short", day: "numeric" }),
      hour: "2-digit",
      minute: "2-digit",
    });
  };
  const wait = (state) => {
    const waits = Boolean(state);
    document.getElementById("leave").hidden = !waits;
    document.getElementById("give-up").hidden = waits;
    document.getElementById("next").hidden = waits;
    if (queue.hidden === !waits) {
      if (!waits) return;
    } else {
      queue.hidden = !waits;
      heading.textContent = waits ? words.waiting : words.starting;
      if (!waits) return;
    }
    text("queue-position", state.position ? String(state.position) : "–");
    text("queue-start", state.expected_start ? whenStarts(state.expected_start) : words.unknown);
    const list = document.getElementById("queue-reasons");
    const sentences = (state.reasons ?? []).map((reason) => reason.sentence);
    if ([...list.children].map((item) => item.textContent).join("\n") !== sentences.join("\n")) {
      list.replaceChildren(
        ...sentences.map((one) => Object.assign(document.createElement("li"), { textContent: one })),
      );
    }
  };

  const end = (source) => {
    source.close();
    clearInterval(clock);
    steps.classList.add("lc-steps--over");
    document.getElementById("next").hidden = true;
    document.getElementById("cancel").hidden = true;
  };

  // While the hub restarts it refuses, and an event stream gives up at a refusal: ask anew, until
  // the hub has taken the start up again.
  const away = document.getElementById("away");
  const PATIENCE = 180000;
  let lost = 0;

  const listen = () => {
    const source = new EventSource(page.dataset.progress);
    // A reconnected stream tells everything from the beginning.
    source.onopen = () => {
      steps.replaceChildren();
      away.hidden = true;
      lost = 0;
    };
    source.onmessage = (message) => heard(source, message);
    source.onerror = () => {
      lost ||= Date.now();
      away.hidden = false;
      if (source.readyState !== EventSource.CLOSED) return;
      if (Date.now() - lost > PATIENCE) location.reload();
      else setTimeout(listen, 3000);
    };
  };

  const heard = (source, message) => {
    const event = JSON.parse(message.data);
    wait(event.ready || event.failed ? null : event.queue);
    if (event.queue) return;
    if (event.progress !== undefined) advance(event.progress);
    if (event.ready) {
      end(source);
      say(words.ready);
      location.reload();
    } else if (event.failed) {
      end(source);
      bar.classList.add("lc-bar--failed");
      steps.classList.add("lc-steps--failed");
      document.getElementById("reason").textContent = translated(event.message.replace(/^Spawn failed: /, ""));
      heading.textContent = words.failed;
      const box = document.getElementById("failed");
      box.hidden = false;
      box.focus();
    } else if (event.message) {
      say(translated(event.message));
    }
  };
  listen();
})();
