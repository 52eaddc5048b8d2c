// The spawn page: versions of environments, GPU types, and counts that stay true.
"use strict";

(() => {
  const form = document.getElementById("spawn_form");
  const words = JSON.parse(document.getElementById("spawn-words").textContent);

  // An older version is asked for as name:version, the newest as the name alone.
  for (const select of form.querySelectorAll("select[data-version-of]")) {
    const radio = document.getElementById(select.dataset.versionOf);
    const apply = () => {
      radio.value = select.selectedIndex === 0 ? radio.dataset.name : `${radio.dataset.name}:${select.value}`;
    };
    select.addEventListener("change", () => {
      apply();
      radio.checked = true;
    });
    apply();
  }

  const type = form.elements.gpu_type;
  const part = form.querySelector("[data-with-gpu]");
  const withGpu = () => {
    const none = form.elements.gpus?.value === "0";
    if (type) type.closest("[data-gpu-type]").hidden = type.disabled = none;
    if (!part) return;
    part.hidden = none;
    for (const control of part.querySelectorAll("select, input")) control.disabled = none;
  };
  form.addEventListener("change", withGpu);
  withGpu();

  // Each account has its own limits, and another wait.
  const account = form.elements.account;
  const charged = () => words.accounts.find((one) => one.name === account?.value) ?? words.accounts[0];
  const outlooks = (one) => one.types[type?.value] ?? one.outlooks;
  // The time that starts now comes first where the usual one would wait.
  const showLimit = () => {
    const one = charged();
    const limit = form.elements.time_limit;
    if (!one || !limit) return;
    const before = limit.value;
    const gap = outlooks(one)[form.elements.gpus.value]?.until;
    const usual = one.usual ? words.usual.replace("{time}", words.minutes[one.usual]) : words.none;
    limit.replaceChildren(
      ...(gap ? [new Option(gap.text, gap.value)] : []),
      new Option(usual, ""),
      ...one.minutes.map((m) => new Option(words.minutes[m], m)),
    );
    if (one.minutes.includes(Number(before))) limit.value = before;
  };
  const showAccount = () => {
    const one = charged();
    document.getElementById("account-facts").replaceChildren(
      ...one.facts.map((fact) => Object.assign(document.createElement("li"), { textContent: fact })),
    );
    for (const radio of form.querySelectorAll("input[name=gpus]")) {
      const why = one.outlooks[radio.value];
      const never = why?.state === "never"; // of any type: what one type lacks another may have
      const note = document.getElementById(`${radio.id}-note`);
      const reason = document.getElementById(`${radio.id}-why`);
      note.hidden = never || !(note.textContent = outlooks(one)[radio.value]?.text ?? "");
      reason.hidden = !never;
      reason.textContent = never ? why.text : "";
      radio.disabled = never;
      if (never && radio.checked) form.querySelector("input[name=gpus][value='0']").checked = true;
    }
    showLimit();
    withGpu();
  };
  account?.addEventListener("change", showAccount);
  if (words.accounts.length) {
    type?.addEventListener("change", showAccount);
    showAccount(); // what was posted, and refused, may be of another type
  }
  for (const radio of form.querySelectorAll("input[name=gpus]")) radio.addEventListener("change", showLimit);

  const free = document.getElementById("gpu-free");
  if (!free) return;

  const show = (gpus) => {
    free.textContent = words.free.replace("{free}", gpus.free).replace("{total}", gpus.total);
    for (const kind of gpus.types) {
      for (const option of type?.options ?? []) {
        if (option.value !== kind.model) continue;
        option.textContent = words.type
          .replace("{name}", kind.model)
          .replace("{memory}", kind.memory)
          .replace("{free}", kind.free)
          .replace("{total}", kind.total);
        // A choice already made stays, so that nothing changes under the person's hands.
        option.disabled = kind.free === 0 && !option.selected && !words.accounts.length;
      }
    }
    // Where one may wait, nothing is out of reach because it is in use now.
    if (words.accounts.length) return;
    const best = Math.max(0, ...gpus.types.map((kind) => kind.free));
    for (const radio of form.querySelectorAll("input[name=gpus]")) {
      const reason = document.getElementById(`${radio.id}-why`);
      const short = Number(radio.value) > best;
      radio.disabled = short && !radio.checked;
      reason.hidden = !short;
      if (short && !reason.textContent) reason.textContent = words.inUse;
    }
  };

  // Only for those who have been on the console in this browser session: it has a login of
  // its own. Others keep what the page was made with.
  const timer = setInterval(async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(free.dataset.source, {
        credentials: "same-origin",
        redirect: "error",
        headers: { Accept: "application/json" },
        signal: AbortSignal.timeout(10000),
      });
      if (!answer.ok) return clearInterval(timer);
      show(await answer.json());
    } catch {
      clearInterval(timer);
    }
  }, 15000);
})();
