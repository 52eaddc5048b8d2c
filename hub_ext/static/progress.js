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
  const clock = setInterval(() => {
    tick();
    if (!queue.hidden) text("queue-start", whenStarts());
  }, 1000);

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
  let expected = null;
  const whenStarts = () => {
    if (!expected) return words.unknown;
    const at = new Date(expected * 1000);
    const left = Math.round((at - Date.now()) / 1000);
    if (left < 120) return words.soon.replace("{seconds}", Math.max(2, left));
    const today = at.toDateString() === new Date().toDateString();
    return at.toLocaleString(document.documentElement.lang, {
      ...(today ? {} : { weekday: "short", month: "short", day: "numeric" }),
      hour: "2-digit",
      minute: "2-digit",
      hourCycle: "h23",
    });
  };
  const wait = (state) => {
    const waits = Boolean(state);
    document.getElementById("leave").hidden = !waits;
    document.getElementById("give-up").hidden = waits;
    document.getElementById("next").hidden = waits;
    if (!waits && queue.hidden) return;
    queue.hidden = !waits;
    expected = state?.expected_start;
    if (!waits) return text("heading", words.starting);
    const of = words[state.of ?? "gpus"];
    text("heading", of.heading);
    text("queue-title", of.title);
    text("queue-close", of.close);
    text("queue-position", state.position ? String(state.position) : "–");
    text("queue-start", whenStarts());
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

  // While the hub restarts it refuses, and an event stream gives up at a refusal: look what became
  // of the start, and listen anew where it goes on: the hub begins it again soon after it is back.
  const away = document.getElementById("away");
  const PATIENCE = 20000;
  let idleSince = 0;
  let wasReady = false;

  const standing = async () => {
    const answer = await fetch(page.dataset.server, {
      credentials: "same-origin",
      redirect: "error",
      headers: { "X-XSRFToken": page.dataset.xsrf, Accept: "application/json" },
      signal: AbortSignal.timeout(10000),
    });
    if (answer.status === 404) return {};
    if (!answer.ok) throw new Error(answer.status);
    return answer.json();
  };

  const lookAgain = async () => {
    try {
      const server = await standing();
      // Twice: for a moment one that was just cancelled looks so, too.
      if (server.ready && wasReady) return location.reload();
      wasReady = server.ready;
      away.hidden = true;
      if (server.pending === "spawn") {
        idleSince = 0;
        return listen();
      }
      // The hub answers, and the server is not on its way.
      if (!server.ready) idleSince ||= Date.now();
      if (idleSince && Date.now() - idleSince >= PATIENCE) return fail(words.lost);
    } catch {
      idleSince = 0;
      away.hidden = false;
    }
    setTimeout(lookAgain, 1500);
  };

  const listen = () => {
    const source = new EventSource(page.dataset.progress);
    // A reconnected stream tells everything from the beginning.
    source.onopen = () => {
      steps.replaceChildren();
      away.hidden = true;
      idleSince = 0;
    };
    source.onmessage = (message) => heard(source, message);
    source.onerror = () => {
      source.close();
      setTimeout(lookAgain, 1000);
    };
  };

  const fail = (reason) => {
    clearInterval(clock);
    wait(null);
    away.hidden = true;
    steps.classList.add("lc-steps--over", "lc-steps--failed");
    document.getElementById("next").hidden = true;
    document.getElementById("cancel").hidden = true;
    bar.classList.add("lc-bar--failed");
    document.getElementById("reason").textContent = reason;
    heading.textContent = words.failed;
    const box = document.getElementById("failed");
    box.hidden = false;
    box.focus();
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
      source.close();
      fail(translated(event.message.replace(/^Spawn failed: /, "")));
    } else if (event.message) {
      say(translated(event.message));
    }
  };
  listen();
})();
