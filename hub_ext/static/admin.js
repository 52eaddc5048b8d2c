// JupyterHub's Admin page: names for its buttons, and a question before it ends or starts something.
"use strict";

(() => {
  // React's program brings all of Bootstrap along: before our own style, which is then in force.
  document.head.prepend(...document.head.querySelectorAll("style:not(#lc-style)"));
  const root = document.getElementById("react-admin-hook");
  const dialog = document.getElementById("admin-ask");
  const words = JSON.parse(document.getElementById("admin-words").textContent);
  const part = (name) => document.getElementById(`admin-ask-${name}`);
  const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const shown = (selector) => [...root.querySelectorAll(selector)].filter((one) => !one.disabled);
  const stops = () => shown(".stop-button").filter((one) => english(one) === "Stop Server").length;
  const starts = () => shown(".start-button").length;

  // -- words: React's are English, and it never reads what stands in the page ------------------------
  const { said = {}, forms = {}, details = {}, values = {} } = words.theirs;
  const patterns = Object.entries(forms).map(([form, text]) => [new RegExp(form), text]);
  const ours = (text) => {
    if (Object.hasOwn(said, text)) return said[text];
    for (const [form, shape] of patterns) {
      const match = form.exec(text);
      if (match) return fill(shape, match);
    }
    return text;
  };
  const written = new WeakMap(); // a text of React's, as React wrote it, and as it stands there now
  const say = (node, table = null) => {
    const text = node.nodeValue;
    if (written.get(node)?.now === text) return;
    const key = text.trim();
    const now = key ? text.replace(key, () => table?.[key] ?? ours(key)) : text;
    written.set(node, { theirs: text, now });
    if (now !== text) node.nodeValue = now;
  };
  const theirs = (node) => written.get(node)?.theirs ?? node.nodeValue;
  const named = "script, [data-testid^='user-name-div-'], [data-testid='user-row-server'], td > [data-testid$='-collapse']";
  const texts = (node) => {
    const walk = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walk.nextNode()) if (node.closest(named) || !walk.currentNode.parentElement.closest(named)) found.push(walk.currentNode);
    return found;
  };
  const sayAll = () => {
    texts(root).forEach((node) => say(node));
    for (const name of ["title", "placeholder", "aria-label"])
      for (const node of root.querySelectorAll(`[${name}]`)) {
        const text = node.getAttribute(name);
        if (ours(text) !== text) node.setAttribute(name, ours(text));
      }
  };
  const english = (node) => texts(node).map((one) => theirs(one)).join("").trim();

  // Whose server a button in a row is about.
  const whose = (button) => {
    const row = button.closest("tr");
    const user = row?.querySelector("[data-testid^='user-name-div-']")?.textContent ?? "";
    const server = row?.querySelector("[data-testid='user-row-server']")?.textContent ?? "";
    return server ? `${user}/${server}` : user;
  };

  // -- what is asked, by button: title, text, and whether the owner is told something -----------------
  const question = (button) => {
    const text = english(button);
    const who = whose(button);
    if (button.matches(".stop-all"))
      return { ...words.stopAll, count: stops(), tell: true };
    if (button.matches(".start-all")) return { ...words.startAll, count: starts() };
    if (button.id === "shutdown-button") return { ...words.shutdown, count: stops() };
    if (text === "Stop Server") return { ...words.stop, who, tell: true };
    if (text === "Delete Server") return { ...words.remove, who };
    if (/^Delete (user|group)$/i.test(text)) return { ...words.erase, who: location.hash };
    return null;
  };

  let asked = null; // the button that was clicked
  let agreed = null; // the button that may be clicked
  let order = null; // what the stops of the next seconds carry

  document.addEventListener(
    "click",
    (event) => {
      const button = event.target.closest?.("button");
      if (!button || !root.contains(button) || button === agreed) return;
      const ask = question(button);
      if (!ask) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      asked = button;
      part("title").textContent = fill(ask.title, ask);
      part("text").textContent = ask.count === 0 && ask.none ? ask.none : fill(ask.text, ask);
      part("yes").textContent = ask.yes;
      part("yes").hidden = ask.count === 0 && Boolean(ask.none);
      part("tell").hidden = !ask.tell || part("yes").hidden;
      part("message").value = "";
      dialog.returnValue = "";
      dialog.showModal();
    },
    true, // before React hears of it
  );

  dialog.addEventListener("close", () => {
    const button = asked;
    asked = null;
    if (dialog.returnValue !== "yes" || !button?.isConnected) return button?.focus();
    const message = part("message").value.trim();
    const grace = Number(part("grace").value);
    order = part("tell").hidden ? null : { message, grace, until: Date.now() + 15000 };
    agreed = button;
    button.click();
    agreed = null;
  });

  // React sends the request; the message and the grace are put into it.
  const plain = window.fetch;
  window.fetch = (url, options = {}) => {
    const path = new URL(url, location.href).pathname;
    if (order && Date.now() < order.until && options.method === "DELETE" && /\/users\/[^/]+\/servers?(\/|$)/.test(path)) {
      const { message, grace } = order;
      const body = { ...JSON.parse(options.body ?? "{}"), ...(message && { message }), ...(grace && { grace }) };
      return plain(url, { ...options, body: JSON.stringify(body) });
    }
    return plain(url, options);
  };

  // -- what REST says of a person and a server, by its keys; names stay as they are ------------------
  const NAMES = ["name", "display_name", "full_name"];
  const alone = (cell) => (cell?.childNodes.length === 1 && cell.firstChild.nodeType === Node.TEXT_NODE ? cell.firstChild : null);
  const tell = (box) => {
    for (const title of box.querySelectorAll(".card-title")) texts(title).forEach((node) => say(node));
    for (const row of box.querySelectorAll("tr")) {
      const [key, value] = [...row.children].map(alone);
      if (!key) continue;
      const name = theirs(key);
      say(key, details);
      if (!Object.hasOwn(details, name)) key.parentElement.lang = "en";
      if (value && !NAMES.includes(name)) say(value, values);
    }
  };

  // -- names ------------------------------------------------------------------------------------------
  const name = (node, label) => {
    if (node.getAttribute("aria-label") !== label) node.setAttribute("aria-label", label);
  };
  const nameAll = () => {
    for (const button of root.querySelectorAll("button[data-testid$='-collapse-button']")) {
      name(button, fill(words.details, { who: whose(button) }));
      const box = root.querySelector(`td > [data-testid='${CSS.escape(button.dataset.testid.replace(/-button$/, ""))}']`);
      if (!box) continue;
      box.id ||= box.dataset.testid;
      button.setAttribute("aria-controls", box.id);
      tell(box);
    }
    for (const button of root.querySelectorAll("tr.user-row .actions button, tr.user-row .actions a")) {
      const said = button.textContent.trim();
      if (said) name(button, fill(words.labelled, { label: said, value: whose(button) }));
    }
    for (const node of root.querySelectorAll("th [class*='fa-sort'], th .fa")) {
      const heading = node.closest("th");
      const target = node.closest("button, [role=button]") ?? node;
      if (!target.textContent.trim()) name(target, fill(words.sort, { what: heading.textContent.trim() }));
      if (!target.getAttribute("role") && target.tagName !== "BUTTON") target.setAttribute("role", "button");
    }
    // On a phone a cell has no heading above it.
    const headings = [...root.querySelectorAll("table:has(.user-row) > thead th")].map((one) => one.textContent.trim());
    for (const row of root.querySelectorAll("tr.user-row"))
      for (const [at, cell] of [...row.cells].entries())
        if (at > 1 && !cell.matches(".actions") && headings[at]) cell.dataset.label = headings[at];
    for (const list of root.querySelectorAll("ul:has(> :not(li))")) list.setAttribute("role", "group");
    for (const input of root.querySelectorAll("input")) {
      const label = words.inputs[input.getAttribute("aria-label") ?? ""] ?? words.inputs[input.name];
      if (label) name(input, label);
    }
    for (const button of root.querySelectorAll("button:not([aria-label])")) {
      if (!button.textContent.trim()) name(button, button.title || words.button);
    }
  };
  // At once, not with the next frame: nobody ever meets a button without a name.
  const see = () => {
    sayAll();
    nameAll();
  };
  new MutationObserver(see).observe(root, { childList: true, characterData: true, subtree: true });
  see();
})();
