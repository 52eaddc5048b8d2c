/* How much of its memory, CPU and disk this server uses: a button in JupyterLab's status bar. */
const POLL = 5_000; // milliseconds between two looks while the tab is seen
const SLOW = 60_000; // the longest after failures
const GIB = 2 ** 30;
/* Of the page, not of the console: figures are there before that has answered, and without it. */
const WORDS = {
  en: {
    memory: "Memory", cpu: "CPU", gpu: "GPU", disk: "Disk", figures: "Use of this server",
    of: "{used} of {limit}", cores: "{used} of {limit} cores", all: "{used}", colon: ": ", then: "; ",
  },
  zh: {
    memory: "内存", cpu: "CPU", gpu: "GPU", disk: "磁盘", figures: "此服务器的使用情况",
    of: "已用 {used}，共 {limit}", cores: "已用 {used} 核，共 {limit} 核", all: "已用 {used}", colon: "：", then: "；",
  },
};

const percent = (part) => (part?.limit ? Math.round((100 * part.used) / part.limit) : null);
const size = (bytes) =>
  bytes >= GIB / 10 ? `${(bytes / GIB).toFixed(1)} GiB` : `${Math.round(bytes / 2 ** 20)} MiB`;

export class Meter {
  /* `changed` is called when there is news. */
  constructor({ ask, notification, language, changed }) {
    Object.assign(this, { ask, notification, changed });
    this.words = WORDS[language.slice(0, 2).toLowerCase()] ?? WORDS.en;
    this.news = 0;
    this.failures = 0;
    this.found = null;
    this.lease = null;
  }

  show(bar, Widget, name) {
    const node = (this.node = document.createElement("button"));
    node.type = "button";
    node.className = "labcommons-meter";
    Object.assign(node.style, {
      background: "none",
      border: "0",
      color: "inherit",
      cursor: "pointer",
      font: "inherit",
      padding: "0 4px",
      whiteSpace: "nowrap",
    });
    node.addEventListener("click", () =>
      this.notification.info(this.lines().join("\n"), { autoClose: 15_000 }),
    );
    const widget = new Widget({ node });
    widget.id = `${name}-meter`;
    bar.registerStatusItem(`${name}:meter`, { item: widget, align: "right", rank: 21 });
    document.addEventListener("visibilitychange", () => this.look());
    this.look();
  }

  async look() {
    clearTimeout(this.timer);
    if (document.hidden) return;
    let wait = POLL;
    try {
      this.found = await this.ask("resources");
      this.failures = 0;
      this.draw();
      if (this.found.news !== this.news) {
        this.news = this.found.news;
        this.changed();
      }
    } catch {
      wait = Math.min(POLL * 2 ** this.failures++, SLOW);
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), wait);
  }

  draw() {
    const { memory, cpu, disk, high } = this.found;
    const parts = [];
    const gpu = this.lease?.gpu_percent;
    for (const [key, value] of [
      ["memory", percent(memory)],
      ["cpu", percent(cpu)],
      ["gpu", gpu === undefined || gpu === null ? null : Math.round(gpu)],
      ["disk", percent(disk)],
    ]) {
      if (value === null) continue;
      const part = document.createElement("span");
      part.textContent = `${this.words[key]} ${value}%`;
      // What is nearly full is said by more than a colour.
      if (key !== "cpu" && key !== "gpu" && value >= 100 * high) {
        part.style.cssText =
          "background: var(--jp-warn-color0, #b45309); color: #fff; border-radius: 3px; padding: 0 4px";
        part.textContent = `⚠ ${part.textContent}`;
      }
      parts.push(part, " · ");
    }
    this.node.replaceChildren(...parts.slice(0, -1));
    this.node.title = this.lines().join("\n");
    const { figures, colon, then } = this.words;
    this.node.setAttribute("aria-label", figures + colon + this.lines().join(then));
  }

  lines() {
    const { memory, cpu, disk, tmp } = this.found ?? {};
    const words = this.words;
    // Without a limit only what is used.
    const said = (text, used, limit) =>
      (limit ? text : words.all).replace("{used}", used).replace("{limit}", limit);
    const of = (part) => said(words.of, size(part.used), part.limit && size(part.limit));
    return [
      memory && [words.memory, of(memory)],
      cpu && [words.cpu, said(words.cores, cpu.used.toFixed(1), cpu.limit)],
      disk && [words.disk, of(disk)],
      ...(tmp ?? []).filter((one) => one.used > one.limit / 10).map((one) => [one.place, of(one)]),
    ]
      .filter(Boolean)
      .map((line) => line.join(words.colon));
  }
}
