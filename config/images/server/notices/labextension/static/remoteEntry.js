/* JupyterLab extension "labcommons-notices", written as it is loaded: no build.
 *
 * JupyterLab loads a federated extension as a webpack container: an object with init(scope), which
 * is given the shared packages, and get(module), which gives a factory of the module. Another
 * plugin is another element of `plugins`.
 */
"use strict";
(() => {
  const NAME = "labcommons-notices";
  const POLL = 30_000; // milliseconds between two looks while the tab is seen
  const SLOW = 300_000; // the longest after failures
  const HOUR = 3600; // seconds: what "extend" asks for
  let scope = {};

  /** A package that JupyterLab shares: the very one it uses itself. */
  async function shared(name) {
    const versions = Object.values(scope[name] ?? {});
    if (!versions.length) throw new Error(`${NAME}: JupyterLab shares no ${name}`);
    return (await versions[0].get())();
  }

  /** Requests to the server's own part of this extension. */
  function client(services, language) {
    const settings = services.ServerConnection.makeSettings();
    const query = new URLSearchParams({
      zone: Intl.DateTimeFormat().resolvedOptions().timeZone ?? "UTC",
      lang: language,
    });
    return async (path, body) => {
      const answer = await services.ServerConnection.makeRequest(
        `${settings.baseUrl}labcommons/${path}?${query}`,
        body ? { method: "POST", body: JSON.stringify(body) } : {},
        settings,
      );
      const document = await answer.json();
      if (!answer.ok) throw new Error(document.error?.message ?? document.message ?? answer.status);
      return document;
    };
  }

  function clock(text, language) {
    const when = new Date(text);
    const today = when.toDateString() === new Date().toDateString();
    const day = today ? {} : { month: "short", day: "numeric" };
    return when.toLocaleString(language, { ...day, hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  }

  async function makePlugins() {
    const [apputils, services, statusbar, translation, signaling, widgets] = await Promise.all([
      ...["apputils", "services", "statusbar", "translation"].map((n) => shared(`@jupyterlab/${n}`)),
      ...["signaling", "widgets"].map((n) => shared(`@lumino/${n}`)),
    ]);
    return [
      {
        id: `${NAME}:plugin`,
        autoStart: true,
        optional: [statusbar.IStatusBar, translation.ITranslator],
        activate: (_app, bar, translator) => {
          const language = (translator?.languageCode ?? "en").replace("_", "-");
          const watch = new Watch(apputils.Notification, client(services, language), language);
          if (bar) watch.show(bar, widgets.Widget, signaling.Signal);
          watch.start();
        },
      },
    ];
  }

  /** Keeps notifications and the status bar as the console says they should be. */
  class Watch {
    constructor(notification, ask, language) {
      Object.assign(this, { notification, ask, language });
      this.shown = new Map(); // notice's id -> JupyterLab's id of its notification
      this.words = {};
      this.lease = null;
      this.failures = 0;
    }

    start() {
      this.notification.manager.changed.connect((_, change) => {
        if (change.type === "removed") this.dismissed(change.notification.id);
      });
      document.addEventListener("visibilitychange", () => this.look());
      this.look();
    }

    /** Look now, and again later; a tab that nobody sees asks nothing. */
    async look() {
      clearTimeout(this.timer);
      if (document.hidden) return;
      let wait = POLL;
      try {
        this.update(await this.ask("notices"));
        this.failures = 0;
      } catch (error) {
        console.debug(`${NAME}: ${error.message}`);
        wait = Math.min(POLL * 2 ** this.failures++, SLOW);
      }
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.look(), wait);
    }

    update({ notices, leases, words, server }) {
      this.words = words;
      this.lease = leases.find((lease) => lease.server === server) ?? null;
      this.item?.show(this.lease);
      const open = new Map(notices.filter((one) => !one.seen).map((one) => [one.id, one]));
      for (const [id, shown] of this.shown) {
        if (open.has(id)) continue;
        // No longer true, or seen in another tab.
        this.shown.delete(id);
        this.notification.dismiss(shown);
      }
      for (const one of [...open.values()].reverse()) {
        if (!this.shown.has(one.id)) this.tell(one);
      }
    }

    tell(one) {
      const about = one.server ? `[${one.server}] ` : "";
      const actions = one.actions
        .filter(() => one.lease)
        .map((action) => ({
          label: this.words[action] ?? action,
          displayType: "accent",
          callback: (event) => {
            event.preventDefault(); // stays until the console has agreed
            this.act(one.lease, action);
          },
        }));
      const options = { autoClose: one.level === "info" ? 15_000 : false, actions };
      this.shown.set(one.id, this.notification.emit(about + one.sentence, one.level, options));
    }

    async act(lease, action) {
      try {
        await this.ask(`leases/${lease}/${action}`, action === "extend" ? { by: HOUR } : {});
      } catch (error) {
        this.notification.error(error.message, { autoClose: 10_000 });
      }
      await this.look();
    }

    /** The person closed it (or it closed itself): it is seen, here and everywhere. */
    dismissed(shown) {
      for (const [id, its] of this.shown) {
        if (its !== shown) continue;
        this.shown.delete(id);
        this.ask("notices/seen", { ids: [id] }).catch(() => {});
      }
    }

    /** A button in the status bar: until when the GPUs are there. */
    show(bar, Widget, Signal) {
      const node = document.createElement("button");
      node.type = "button";
      node.className = "labcommons-until";
      Object.assign(node.style, {
        background: "none",
        border: "0",
        color: "inherit",
        cursor: "pointer",
        font: "inherit",
        padding: "0 4px",
      });
      node.addEventListener("click", () => this.details());
      const widget = new Widget({ node });
      widget.id = `${NAME}-until`;
      const changed = new Signal(widget);
      bar.registerStatusItem(`${NAME}:until`, {
        item: widget,
        align: "right",
        rank: 20,
        isActive: () => Boolean(this.lease),
        activeStateChanged: changed,
      });
      this.item = {
        show: (lease) => {
          changed.emit();
          if (!lease) return;
          const end = this.end(lease);
          node.textContent = end
            ? this.words.until.replace("{time}", clock(end, this.language))
            : this.words.held;
          node.title = this.sentence(lease);
        },
      };
    }

    end(lease) {
      return [lease.ends_at, lease.stop?.at].filter(Boolean).sort()[0] ?? null;
    }

    sentence(lease) {
      const gpus = lease.gpus.map((gpu) => {
        const notes = ["shared", "simulated"].filter((key) => gpu[key]).map((key) => this.words[key]);
        return gpu.model + (notes.length ? ` (${notes.join(", ")})` : "");
      });
      const end = this.end(lease);
      return (end ? this.words.details : this.words.endless)
        .replace("{gpus}", gpus.join(" + "))
        .replace("{time}", end ? clock(end, this.language) : "");
    }

    details() {
      const lease = this.lease;
      if (!lease) return;
      const extend = {
        label: this.words.extend,
        displayType: "accent",
        callback: () => this.act(lease.id, "extend"),
      };
      this.notification.info(this.sentence(lease), {
        autoClose: 15_000,
        actions: lease.ends_at ? [extend] : [],
      });
    }
  }

  const container = {
    init(given) {
      scope = given;
    },
    async get(module) {
      if (module !== "./extension") throw new Error(`${NAME}: no module ${module}`);
      const plugins = await makePlugins();
      return () => ({ __esModule: true, default: plugins });
    },
  };
  (window._JUPYTERLAB ??= {})[NAME] = container;
})();
