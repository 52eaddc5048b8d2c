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
  const OLD = 600_000; // milliseconds
  const LONGEST = 140; // characters of a notification that JupyterLab shows
  // Of these the dialog tells that JupyterLab itself shows.
  const IN_DIALOG = ["kernel_out_of_memory", "kernel_ended"];
  const here = document.currentScript.src;
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
      if (!answer.ok) {
        const error = new Error(document.error?.message ?? document.message ?? answer.status);
        const code = document.error?.code ?? document.code;
        throw Object.assign(error, { code, status: answer.status });
      }
      return document;
    };
  }

  /** Where the hub is, for links to it; null without one. */
  function hubOf(config) {
    const [origin, prefix, user] = ["hubHost", "hubPrefix", "hubUser"].map((key) => config.getOption(key));
    return prefix && user ? { origin, prefix, user: encodeURIComponent(user) } : null;
  }

  function clock(text, language) {
    const when = new Date(text);
    const today = when.toDateString() === new Date().toDateString();
    const day = today ? {} : { month: "short", day: "numeric" };
    return when.toLocaleString(language, { ...day, hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  }

  async function makePlugins() {
    const [
      apputils, coreutils, services, statusbar, translation, notebook, consoles, browser, signaling, widgets,
      meter, deaths, sending, broadcasts, materials, jobs,
    ] =
      await Promise.all([
        ...["apputils", "coreutils", "services", "statusbar", "translation", "notebook", "console", "filebrowser"].map((n) =>
          shared(`@jupyterlab/${n}`),
        ),
        ...["signaling", "widgets"].map((n) => shared(`@lumino/${n}`)),
        ...["meter.js", "deaths.js", "sending.js", "broadcasts.js", "materials.js", "jobs.js"].map((name) => import(new URL(name, here))),
      ]);
    return [
      {
        id: `${NAME}:plugin`,
        autoStart: true,
        optional: [
          statusbar.IStatusBar,
          translation.ITranslator,
          notebook.INotebookTracker,
          consoles.IConsoleTracker,
          browser.IDefaultFileBrowser,
          apputils.ICommandPalette,
        ],
        activate: (app, bar, translator, notebooks, consolePanels, files, palette) => {
          const language = (translator?.languageCode ?? "en").replace("_", "-");
          const ask = client(services, language);
          const watch = new Watch(apputils, ask, language);
          watch.meter = new meter.Meter({
            ask,
            notification: apputils.Notification,
            language,
            changed: () => watch.look(),
          });
          const died = new deaths.Deaths({
            Dialog: apputils.Dialog,
            reason: (kernel) => watch.reason(kernel),
            tell: (notice) => watch.emit(notice, false),
          });
          watch.sending = new sending.Sending({
            app, ask, files, notebooks, palette,
            apputils,
            hub: hubOf(coreutils.PageConfig),
            changed: () => watch.look(),
            words: () => watch.words,
          });
          watch.jobs = new jobs.Jobs({
            app, palette,
            hub: watch.sending.hub,
            opened: () => watch.sending.opened(),
            chosen: () => watch.sending.chosen(),
            words: () => watch.words,
          });
          for (const tracker of [notebooks, consolePanels]) if (tracker) died.follow(tracker);
          if (bar) {
            watch.show(bar, widgets.Widget, signaling.Signal);
            watch.meter.show(bar, widgets.Widget, NAME);
          }
          watch.start();
          new broadcasts.Broadcasts({ ask, shell: app.shell }).start();
          void new materials.Materials({
            app, ask, palette,
            notification: apputils.Notification,
            words: () => watch.words,
            all: (one) => watch.all(one),
          }).start();
        },
      },
    ];
  }

  /** Keeps notifications and the status bar as the console says they should be. */
  class Watch {
    constructor({ Notification, Dialog, showDialog }, ask, language) {
      Object.assign(this, { notification: Notification, Dialog, showDialog, ask, language });
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

    update({ notices, leases, gpu_percent, words, server }) {
      this.words = words;
      this.sending?.ready();
      this.jobs?.ready();
      this.lease = leases.find((lease) => lease.server === server) ?? null;
      this.item?.show(this.lease);
      this.meter.lease = this.lease && { gpu_percent: gpu_percent?.[this.lease.id] };
      if (this.meter.found) this.meter.draw(); // in these words
      this.known = notices;
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
      // What a dialog tells, and what is of an earlier server, is kept without coming up.
      const quiet = IN_DIALOG.includes(one.code) || (one.ended && Date.now() - new Date(one.at) > OLD);
      this.emit(one, quiet ? 0 : one.level === "info" ? 15_000 : false);
    }

    /** A notification; what does not fit is behind a button. */
    emit(one, autoClose) {
      const about = one.server ? `[${one.server}] ` : "";
      const actions = one.actions
        .filter((action) => one.lease || one.notebook || action === "keep" || (action === "answer" && this.sending?.hub))
        .map((action) => ({
          label: this.label(action, one),
          displayType: action === "refuse" ? "link" : "accent",
          callback: (event) => {
            event.preventDefault(); // stays until the console has agreed
            if (action === "answer") window.open(`${this.sending.hub.origin}${this.sending.hub.prefix}course-looks`, "_blank", "noopener");
            else if (one.notebook) this.sending.act(action, one).then((done) => done && this.seen(one.id));
            else if (one.lease) this.act(`leases/${one.lease}/${action}`, action === "extend" ? { by: HOUR } : {});
            else this.act("servers/keep", { server: one.server });
          },
        }));
      if (one.more || about.length + one.sentence.length > LONGEST) {
        actions.push({
          label: this.words.more,
          displayType: "link",
          callback: (event) => {
            event.preventDefault();
            this.all(one);
          },
        });
      }
      const before = this.shown.get(one.id);
      this.shown.set(one.id, this.notification.emit(about + one.sentence, one.level, { autoClose, actions }));
      if (before) this.notification.dismiss(before);
    }

    label(action, one) {
      return (this.words[action] ?? action).replace("{name}", one.sender ?? "");
    }

    /** It is done with. */
    seen(id) {
      const shown = this.shown.get(id);
      if (shown) this.notification.dismiss(shown);
    }

    /** A notice with all that there is to say. */
    all(one) {
      const { Widget } = this;
      const node = document.createElement("div");
      for (const line of [one.sentence, one.more].filter(Boolean)) {
        node.append(Object.assign(document.createElement("p"), { textContent: line }));
      }
      void this.showDialog({
        title: one.server || document.title,
        body: new Widget({ node }),
        buttons: [this.Dialog.okButton({ label: this.words.close })],
      });
    }

    /** The notice about a kernel's death, as soon as the server knows why; null where it does not. */
    async reason(kernel) {
      try {
        const { notice } = await this.ask(`deaths/${kernel}`);
        if (!notice) return null;
        await this.look();
        return this.known?.find((one) => one.id === notice) ?? null;
      } catch {
        return null;
      }
    }

    async act(path, body) {
      try {
        const done = await this.ask(path, body);
        if (done?.message) this.notification.info(done.message, { autoClose: false });
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
      this.Widget = Widget;
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
        callback: () => this.act(`leases/${lease.id}/extend`, { by: HOUR }),
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
