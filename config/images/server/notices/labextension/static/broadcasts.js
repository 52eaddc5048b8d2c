/* Messages to everybody, in a bar above JupyterLab; what the person has closed stays closed in
 * this browser. */
const EVERY = 10_000; // milliseconds between two looks while the tab is seen
const KEY = "labcommons-broadcasts";

function closed() {
  try {
    return new Set(JSON.parse(localStorage.getItem(KEY) ?? "[]"));
  } catch {
    return new Set();
  }
}

function close(id) {
  try {
    localStorage.setItem(KEY, JSON.stringify([...closed(), id].slice(-50)));
  } catch {
    // Without storage it comes back with the next look.
  }
}

function make(tag, style, given = {}) {
  const node = Object.assign(document.createElement(tag), given);
  Object.assign(node.style, style);
  return node;
}

export class Broadcasts {
  constructor({ ask, shell }) {
    Object.assign(this, { ask, shell, shown: [], drawn: "[]" });
    this.node = make("div", { left: "0", position: "absolute", right: "0", top: "0" }, { id: "labcommons-broadcasts" });
    this.node.setAttribute("role", "region");
    this.node.setAttribute("aria-live", "polite");
    document.body.append(this.node);
  }

  start() {
    document.addEventListener("visibilitychange", () => this.look());
    window.addEventListener("resize", () => this.fit());
    void this.look();
  }

  async look() {
    clearTimeout(this.timer);
    if (document.hidden) return;
    try {
      this.shown = (await this.ask("broadcasts")).broadcasts ?? [];
    } catch {
      // What is known stays, until its end.
    }
    this.draw();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), EVERY);
  }

  draw() {
    const gone = closed();
    const open = this.shown.filter((one) =>
      !(one.dismissible && gone.has(one.id)) && !(one.ends_at && Date.parse(one.ends_at) <= Date.now()));
    if (JSON.stringify(open) === this.drawn) return;
    this.drawn = JSON.stringify(open);
    this.node.replaceChildren(...open.map((one) => this.bar(one)));
    this.fit();
  }

  bar(one) {
    const soft = one.kind === "info" ? "var(--jp-info-color2, #64b5f6)" : "var(--jp-warn-color2, #ffb74d)";
    const box = make("div", {
      alignItems: "center", background: "var(--jp-layout-color1)", borderLeft: `6px solid ${soft}`,
      borderBottom: "1px solid var(--jp-border-color1)", boxSizing: "border-box", color: "var(--jp-ui-font-color1)",
      display: "flex", font: "var(--jp-ui-font-size1) var(--jp-ui-font-family)", gap: "12px", padding: "5px 10px",
    });
    box.dataset.broadcast = one.id;
    const line = make("div", { flex: "1", maxHeight: "4.5em", overflow: "auto", overflowWrap: "anywhere" });
    line.append(make("strong", { marginRight: "6px" }, { textContent: one.title }));
    line.append([one.text, one.more].filter(Boolean).join(" · "));
    box.append(line);
    if (one.dismissible) {
      const button = make("button", {}, { type: "button", textContent: one.close, className: "jp-mod-styled jp-mod-minimal" });
      button.addEventListener("click", () => {
        close(one.id);
        this.draw();
      });
      box.append(button);
    }
    return box;
  }

  /** JupyterLab begins below the bar. */
  fit() {
    const top = `${this.node.offsetHeight}px`;
    if (this.shell.node.style.top === top) return;
    this.shell.node.style.top = top;
    this.shell.update();
    window.dispatchEvent(new Event("resize"));
  }
}
