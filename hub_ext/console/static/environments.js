// The page of environments: build, follow, search, copy, delete.
"use strict";

(() => {
  const page = document.getElementById("main");
  const words = JSON.parse(document.getElementById("words").textContent);
  const api = page.dataset.api;
  const list = document.getElementById("build-list");
  const LIVE = new Set(["queued", "running"]);
  const PAUSE = 700; // milliseconds between two looks at a build that goes on

  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children.filter((child) => child !== null));
    return made;
  };

  const put = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const beside = (text, more) => (more ? put(words.aside, { text, more }) : text);
  const labelled = (label, value) => put(words.labelled, { label, value });
  const when = (time) => new Date(time).toLocaleString(document.documentElement.lang, {
    year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
  });

  const trouble = (sentence) => {
    const box = document.getElementById("trouble");
    box.firstElementChild.textContent = sentence;
    box.hidden = !sentence;
    document.getElementById("convert").hidden = true;
    if (sentence) box.focus();
  };

  // Raises an Error with a sentence for the person.
  const ask = async (method, path, body) => {
    let answer;
    try {
      answer = await fetch(api + path, {
        method,
        headers: { "X-XSRFToken": page.dataset.xsrf, "Content-Type": "application/json" },
        body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch {
      // No answer to a question is one thing, to a change another: it may have been done.
      throw new Error(method === "GET" ? words.silent : words.unknown);
    }
    const found = await answer.json().catch(() => null);
    if (!answer.ok) {
      throw Object.assign(new Error(found?.error?.message ?? words.silent), { code: found?.error?.code });
    }
    return found;
  };

  // -- builds ---------------------------------------------------------------------------------

  const cards = new Map();

  class Card {
    constructor(build, fresh) {
      this.offset = 0;
      this.bar = element("div", { className: "lc-bar", role: "progressbar" }, element("div"));
      this.bar.setAttribute("aria-valuemin", 0);
      this.bar.setAttribute("aria-valuemax", 100);
      this.title = element("h3");
      this.badge = element("span", { className: "lc-badge" });
      this.message = element("p", { className: "lc-build-message" });
      this.percent = element("span", { className: "lc-number lc-muted" });
      this.log = element("pre", { className: "lc-log", tabIndex: 0, textContent: "" });
      this.details = element("details", { className: "lc-build-log" }, element("summary", { textContent: words.log }), this.log);
      this.details.addEventListener("toggle", () => this.look());
      this.actions = element("div", { className: "lc-actions" });
      this.node = element(
        "article", { className: "lc-build" },
        element("div", { className: "lc-build-head" }, this.title, this.badge, this.percent),
        this.bar, this.message, this.actions, this.details,
      );
      this.message.setAttribute("role", "status");
      this.fresh = fresh;
      this.show(build);
    }

    show(build) {
      this.build = build;
      const live = LIVE.has(build.state);
      this.title.textContent = labelled(words[build.action], `${build.name} → ${build.source}`);
      this.badge.textContent = live && build.cancel_asked ? words.cancelling : words[build.state];
      this.badge.className = `lc-badge ${build.state === "failed" ? "lc-badge--failed" : build.state === "done" || live ? "" : "lc-badge--quiet"}`;
      this.bar.hidden = !live;
      this.bar.setAttribute("aria-label", this.title.textContent);
      this.bar.setAttribute("aria-valuenow", build.percent);
      this.bar.firstElementChild.style.width = `${build.percent}%`;
      this.percent.textContent = build.state === "running" ? `${build.percent} %` : "";
      let sentence = build.explained ? build.sentence ?? build.message : `${build.sentence}\n${build.message}`;
      if (build.state === "queued") sentence = words.waiting;
      else if (build.state === "running" && !sentence) sentence = words.starting;
      else if (build.state === "done") sentence = build.action === "delete" ? words.gone : build.version ?? "";
      if (build.requested_by !== page.dataset.me) {
        sentence = words.by.replace("{user}", () => build.requested_by).replace("{sentence}", () => sentence);
      }
      if (this.message.textContent !== sentence) this.message.textContent = sentence;
      this.message.classList.toggle("lc-reason", build.state === "failed");
      const wanted = live ? ["cancel"] : build.state === "done" ? (this.fresh ? ["reload"] : [])
        : [build.add ? "add" : "", build.correct ? "correct" : "", build.retry ? "retry" : ""].filter(Boolean);
      if (this.actions.dataset.shown !== wanted.join()) {
        this.actions.dataset.shown = wanted.join();
        this.actions.replaceChildren(...wanted.map((action) => this.button(action)));
      }
    }

    button(action) {
      const text = words[action].replace("PACKAGE", this.build.add);
      const look = action === "add" ? "btn-primary" : "lc-quiet";
      const button = element("button", { type: "button", className: `btn btn-sm ${look}`, textContent: text });
      button.setAttribute("aria-label", labelled(text, this.build.name));
      button.addEventListener("click", async () => {
        if (action === "reload") return location.reload();
        button.disabled = true;
        try {
          if (action === "correct") await window.labEnvironments.correct(this.build);
          else if (action === "add") follow((await ask("POST", `builds/${this.build.id}/correct`, { add: [this.build.add] })).build);
          else {
            const { build } = await ask("POST", `builds/${this.build.id}/${action}`);
            if (action === "retry") follow(build);
            else this.show(build);
          }
        } catch (error) {
          trouble(error.message);
        }
        button.disabled = false;
      });
      return button;
    }

    // Asks for state and, where the log is open, for more of it.
    async look() {
      const found = await ask("GET", `builds/${this.build.id}?offset=${this.offset}`);
      this.show(found.build);
      const atEnd = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 4;
      if (found.offset > this.offset) {
        this.offset = found.offset;
        this.log.append(found.log);
      } else if (!this.offset) this.log.textContent = "";
      if (atEnd) this.log.scrollTop = this.log.scrollHeight;
    }

    async follow() {
      while (LIVE.has(this.build.state)) {
        await new Promise((done) => setTimeout(done, document.hidden ? 5 * PAUSE : PAUSE));
        try {
          await this.look();
        } catch (error) {
          // The console may be restarted while we wait: the build goes on.
          await new Promise((done) => setTimeout(done, 3000));
        }
      }
    }
  }

  const add = (build, first, fresh) => {
    const card = new Card(build, fresh);
    cards.set(build.id, card);
    if (first) list.prepend(card.node);
    else list.append(card.node);
    document.getElementById("builds").hidden = false;
    card.follow();
    return card;
  };

  const follow = (build) => {
    trouble("");
    const card = add(build, true, true);
    card.details.open = build.action !== "delete";
    card.node.scrollIntoView({ block: "nearest" });
  };

  for (const build of JSON.parse(document.getElementById("build-data").textContent)) {
    add(build, false, LIVE.has(build.state));
  }

  // -- a new one --------------------------------------------------------------------------------

  const form = document.getElementById("new-form");
  const spec = document.getElementById("new-spec");
  const name = document.getElementById("new-name");
  let typed = false;
  name.addEventListener("input", () => { typed = name.value !== ""; });

  const nameFromSpec = () => {
    const found = /^name[ \t]*:[ \t]*["']?([^"'\s#]+)/m.exec(spec.value);
    if (found && !typed) name.value = found[1].toLowerCase();
  };
  spec.addEventListener("input", nameFromSpec);

  // The text of a file in any encoding of Unicode; a wrong guess would change it without a word.
  const MARKS = [["utf-8", 0xef, 0xbb, 0xbf], ["utf-16le", 0xff, 0xfe], ["utf-16be", 0xfe, 0xff]];
  const MOST = 1.9 * 2 ** 20; // bytes of one request
  const decode = async (file) => {
    if (file.size > MOST) throw new Error(words.large);
    const bytes = new Uint8Array(await file.arrayBuffer());
    const marked = MARKS.find(([, ...mark]) => mark.every((byte, at) => bytes[at] === byte))?.[0];
    const zeros = [0, 1].map((odd) => bytes.subarray(0, 4096).filter((byte, at) => at % 2 === odd && !byte).length);
    const guess = Math.min(...zeros) || !Math.max(...zeros) ? "utf-8" : zeros[0] ? "utf-16be" : "utf-16le";
    try {
      return new TextDecoder(marked ?? guess, { fatal: true }).decode(bytes);
    } catch {
      throw new Error(words.encoding);
    }
  };

  const take = async (file) => {
    if (!file) return;
    trouble("");
    try {
      spec.value = await decode(file);
    } catch (error) {
      trouble(error.message);
      return;
    }
    nameFromSpec();
    spec.focus();
  };
  document.getElementById("new-file").addEventListener("change", (event) => take(event.target.files[0]));
  spec.addEventListener("drop", (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });

  // pip's requirements.txt as an environment.yml; what YAML would read otherwise goes into quotes.
  document.getElementById("convert").addEventListener("click", () => {
    const lines = spec.value.split("\n").map((line) => line.replace(/(^|\s)#.*$/, "").trim()).filter(Boolean);
    const said = lines.map((line) => `      - ${/^[\w.<>=~!,[\];() -]+$/.test(line) && /^\w/.test(line) ? line : JSON.stringify(line)}\n`);
    spec.value = `name: ${name.value || "my-environment"}\ndependencies:\n  - python\n  - ipykernel\n  - pip:\n${said.join("")}`;
    trouble("");
    spec.focus();
  });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button[type=submit]");
    button.disabled = true;
    try {
      const { build } = await ask("POST", "environments", Object.fromEntries(new FormData(form)));
      follow(build);
      document.getElementById("new").open = false;
    } catch (error) {
      trouble(error.message);
      document.getElementById("convert").hidden = error.code !== "spec_is_requirements";
    }
    button.disabled = false;
  });
  if (location.hash === "#new") document.getElementById("new").open = true;

  // -- search -------------------------------------------------------------------------------------

  const search = document.getElementById("search");
  const items = [...document.querySelectorAll("[data-environment]")];
  search?.addEventListener("input", () => {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const item of items) {
      const text = item.dataset.search.toLowerCase();
      item.hidden = !wanted.every((word) => text.includes(word));
      shown += !item.hidden;
    }
    for (const scope of document.querySelectorAll("[data-scope]")) {
      scope.hidden = !scope.querySelector("[data-environment]:not([hidden])");
    }
    document.getElementById("search-count").textContent = !wanted.length ? ""
      : shown ? words.shown.replace("COUNT", shown).replace("TOTAL", items.length) : words.none;
  });

  // -- what others change, and what was made in a terminal -------------------------------------

  const LOOK = 4000; // milliseconds between two looks at the list, the first ones
  const changed = document.getElementById("changed");
  document.getElementById("show-changed").addEventListener("click", () => location.reload());

  const lookOnce = async () => {
    const { digest } = await ask("GET", "environments/look");
    // What one has built oneself says so with a button of its own.
    const own = [...cards.values()].some((card) => card.fresh && LIVE.has(card.build.state));
    if (digest !== page.dataset.digest && !own) changed.hidden = false;
  };
  let looks = 0;
  const watch = async () => {
    for (;;) {
      await new Promise((done) => setTimeout(done, looks < 5 ? LOOK : 8 * LOOK));
      looks += 1;
      if (!document.hidden && changed.hidden) await lookOnce().catch(() => {});
    }
  };
  const lookAtHome = () => {
    if (document.hidden) return;
    looks = 0;
    ask("POST", "environments/look").catch(() => {});
  };
  document.addEventListener("visibilitychange", lookAtHome);
  lookAtHome();
  watch();

  // -- details, copy, delete --------------------------------------------------------------------

  const table = (heads, rows, label) => element(
    "div", { className: "lc-table-box lc-scroll", tabIndex: 0, role: "region", ariaLabel: label },
    element("table", { className: "lc-table lc-small" },
      element("thead", {}, element("tr", {}, ...heads.map((text) => element("th", { scope: "col", textContent: text })))),
      element("tbody", {}, ...rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, cell)))))),
  );

  const small = (text, label, data) => {
    const button = element("button", { type: "button", className: "btn btn-sm lc-quiet", textContent: text });
    button.setAttribute("aria-label", label);
    Object.assign(button.dataset, data);
    return button;
  };

  const packages = (environment) => {
    const rows = environment.packages.map((item) => [item.name, item.version]);
    const box = table([words.package, words.version], rows, words.packages);
    if (rows.length < 12) return [box];
    const find = element("input", { type: "search", className: "form-control form-control-sm lc-find", placeholder: words.find, ariaLabel: words.find });
    find.addEventListener("input", () => {
      const wanted = find.value.trim().toLowerCase();
      for (const row of box.querySelectorAll("tbody tr")) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    });
    return [find, box];
  };

  const standing = (item) => [
    item.tag, item.current ? words.current : "", words[item.state], item.pinned ? words.pinned : "", words[item.signature] ?? "",
  ].filter(Boolean).join(words.between);


  const history = (environment, mayDecide) => {
    const rows = environment.history.map((item, index) => [
      beside(item.version, standing(item)),
      when(item.created), item.built_by, item.size ?? "",
      element("div", { className: "lc-actions" },
        index + 1 < environment.history.length
          ? small(words.compare, words.compareWith.replace("VERSION", item.version), { compare: item.version }) : null,
        mayDecide ? small(words.decideOn, words.decideTitle.replace("VERSION", item.version), { decide: JSON.stringify(item) }) : null),
    ]);
    const reasons = environment.history.filter((item) => item.state !== "offered").map((item) => element("li", {
      textContent: labelled(`${item.version} ${words[item.state]} ${(item.withdrawn ?? item.deprecated).slice(0, 10)}`, item.withdrawn_reason ?? item.deprecated_reason),
    }));
    const box = table([words.version, words.created, words.builtBy, words.size, ""], rows, words.versions);
    box.classList.add("lc-history");
    return [
      box,
      reasons.length ? element("ul", { className: "lc-small" }, ...reasons) : null,
    ];
  };

  const exported = (environment, where) => {
    const list = element("ul", { className: "lc-packages" });
    const show = (version) => list.replaceChildren(...[...words.exports, ...(environment.source === "image" ? words.proofs : [])].map((format) => element("li", {}, element("a", {
      href: `${api}environments/${where}/export?format=${encodeURIComponent(format)}&version=${encodeURIComponent(version)}&_xsrf=${encodeURIComponent(page.dataset.xsrf)}`,
      textContent: format, download: "",
    }))));
    show(environment.version);
    if (environment.history.length < 2) return [list];
    const select = element("select", { className: "form-select form-select-sm lc-find", ariaLabel: words.exportOf },
      ...environment.history.map((item) => element("option", {
        value: item.version, textContent: beside(item.version, item.tag), selected: item.version === environment.version,
      })));
    select.addEventListener("change", () => show(select.value));
    return [select, list];
  };

  const fill = async (article) => {
    const where = article.dataset.environment;
    const box = article.querySelector(".lc-details");
    try {
      const { environment } = await ask("GET", `environments/${where}`);
      box.replaceChildren(...[
        element("h4", { textContent: words.packages }), ...packages(environment),
        element("h4", { textContent: words.versions }), ...history(environment, "decide" in article.dataset),
        element("div", { className: "lc-changes", ariaLive: "polite" }),
        element("h4", { textContent: words.export }), ...exported(environment, where),
      ].filter(Boolean));
    } catch (error) {
      box.replaceChildren(element("p", { className: "lc-reason", textContent: error.message }));
    }
  };

  const details = async (button) => {
    const article = button.closest("article");
    const box = article.querySelector(".lc-details");
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    box.hidden = open;
    if (!open && !box.childElementCount) await fill(article);
  };

  const compare = async (button) => {
    const article = button.closest("article");
    const box = article.querySelector(".lc-changes");
    try {
      const found = await ask("GET", `environments/${article.dataset.environment}/diff?to=${encodeURIComponent(button.dataset.compare)}`);
      const title = words.changes.replace("VERSION", found.to);
      box.replaceChildren(element("h4", { textContent: title }), found.changes.length
        ? table([words.package, words.before, words.after], found.changes.map((item) => [item.name, item.before ?? "–", item.after ?? "–"]), title)
        : element("p", { className: "lc-muted", textContent: words.same }));
    } catch (error) {
      box.replaceChildren(element("p", { className: "lc-reason", textContent: error.message }));
    }
    box.scrollIntoView({ block: "nearest" });
  };

  // -- deciding about a version -----------------------------------------------------------------

  let decided = null;
  const what = document.getElementById("decide-what");
  const value = document.getElementById("decide-value");
  const showWhat = () => {
    const plain = what.value.startsWith("un") || what.value === "pin";
    document.getElementById("decide-about").textContent = words.whats[what.value][1];
    document.getElementById("decide-value-box").hidden = plain;
    document.getElementById("decide-value-label").textContent = what.value === "tag" ? words.tagLabel : words.reason;
    value.required = !plain;
    value.pattern = what.value === "tag" ? "v?[0-9]+\\.[0-9]+\\.[0-9]+(\\-[0-9A-Za-z.\\-]+)?" : ".*";
  };
  what.addEventListener("change", showWhat);

  const openDecision = (button) => {
    const item = JSON.parse(button.dataset.decide);
    const article = button.closest("article");
    decided = { article, version: item.version };
    const image = article.dataset.source === "image";
    const can = [
      item.deprecated ? "undeprecate" : "deprecate", item.withdrawn ? "unwithdraw" : "withdraw",
      item.pinned ? "unpin" : "pin", ...(image ? [] : ["tag"]), ...(item.tag && !image ? ["untag"] : []),
    ];
    what.replaceChildren(...can.map((key) => element("option", { value: key, textContent: words.whats[key][0] })));
    value.value = "";
    showWhat();
    document.getElementById("decide-title").textContent = words.decideTitle.replace("VERSION", item.version);
    document.getElementById("decide").showModal();
  };

  document.getElementById("decide-form").addEventListener("submit", async () => {
    const undo = what.value.startsWith("un"), verb = undo ? what.value.slice(2) : what.value;
    const body = undo ? { undo: true } : { [verb === "tag" ? "tag" : "reason"]: value.value };
    try {
      const { build } = await ask("POST", `environments/${decided.article.dataset.environment}/versions/${decided.version}/${verb}`, body);
      trouble("");
      if (build) add(build, true, true);
      await fill(decided.article);
    } catch (error) {
      trouble(error.message);
    }
  });

  /** A new version of one's own environment with what was installed by hand. */
  const keep = async (button) => {
    button.disabled = true;
    try {
      const { build } = await ask("POST", `environments/${button.dataset.keep}/derive`, JSON.parse(button.dataset.change));
      trouble("");
      add(build, true, true);
    } catch (error) {
      trouble(error.message);
      button.disabled = false;
    }
  };

  let about = null;
  const openDialog = (id, where, title) => {
    about = where;
    const dialog = document.getElementById(id);
    document.getElementById(`${id}-title`).textContent = title.replace("NAME", where.split("/")[1]);
    dialog.showModal();
    return dialog;
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.details) details(button);
    else if (button.dataset.copy) {
      openDialog("copy", button.dataset.copy, words.copyTitle);
      document.getElementById("copy-name").value = button.dataset.copy.split("/")[1];
    } else if (button.dataset.remove) openDialog("remove", button.dataset.remove, words.removeTitle);
    else if (button.dataset.compare) compare(button);
    else if (button.dataset.decide) openDecision(button);
    else if (button.dataset.keep) keep(button);
    else if ("close" in button.dataset) button.closest("dialog").close();
  });

  document.getElementById("copy-form").addEventListener("submit", async (event) => {
    const data = Object.fromEntries(new FormData(event.target));
    try {
      follow((await ask("POST", `environments/${about}/copy`, data)).build);
    } catch (error) {
      trouble(error.message);
    }
  });
  document.querySelector("#remove form").addEventListener("submit", async () => {
    try {
      follow((await ask("DELETE", `environments/${about}`)).build);
    } catch (error) {
      trouble(error.message);
    }
  });

  window.labEnvironments = { ask, trouble, follow, words };
})();
