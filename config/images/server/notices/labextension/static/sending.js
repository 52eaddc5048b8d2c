/* Send a copy of a notebook to a colleague or a team, and open one that was sent. */
const COMMAND = "labcommons:send";
const CHOSEN = "labcommons:send-chosen";

export class Sending {
  constructor(given) {
    Object.assign(this, given);
  }

  /** Once its words are known: in the menu of a notebook in the file browser, and in the palette. */
  ready() {
    const { app, palette } = this;
    if (app.commands.hasCommand(COMMAND)) return;
    // Two, so that what was pointed at is what is sent.
    for (const [command, path] of [[COMMAND, () => this.opened()], [CHOSEN, () => this.chosen()]]) {
      app.commands.addCommand(command, {
        label: () => this.words().send,
        isEnabled: () => Boolean(path()),
        execute: () => this.ask_whom(path()),
      });
    }
    app.contextMenu.addItem({
      command: CHOSEN,
      selector: '.jp-DirListing-item[data-file-type="notebook"]',
      rank: 11,
    });
    app.contextMenu.addItem({ command: COMMAND, selector: ".jp-Notebook", rank: 60 });
    palette?.addItem({ command: COMMAND, category: "File Operations" });
    void this.linked();
  }

  opened() {
    return this.notebooks?.currentWidget?.context.path ?? null;
  }

  /** The one notebook that is chosen in the file browser. */
  chosen() {
    const found = [...(this.files?.selectedItems() ?? [])];
    return found.length === 1 && found[0].type === "notebook" ? found[0].path : null;
  }

  async ask_whom(path) {
    const { InputDialog } = this.apputils;
    const words = this.words();
    const open = this.notebooks?.find((panel) => panel.context.path === path);
    if (open?.context.model.dirty) await open.context.save();
    const asked = await InputDialog.getText({
      title: path.split("/").pop(),
      label: words.send_to,
      okLabel: words.send_now,
    });
    const to = asked.value?.trim();
    if (asked.button.accept && to) await this.send(path, to);
  }

  async send(path, to, outputs = true) {
    const { Notification } = this.apputils;
    const words = this.words();
    try {
      const done = await this.ask("send", { path, to, outputs });
      const said = (done.group ? words.sent_to_group : words.sent)
        .replace("{count}", done.sent)
        .replace("{name}", to);
      Notification.success(said, { autoClose: 8_000 });
    } catch (error) {
      const bare = { label: words.send_bare, callback: () => void this.send(path, to, false) };
      Notification.error(this.because(error), {
        autoClose: false,
        actions: error.code === "too_large" && outputs ? [bare] : [],
      });
    }
  }

  /** "open" and "refuse" of a notice; whether it is done. */
  async act(action, { notebook, sender }) {
    const { Notification } = this.apputils;
    try {
      if (action === "refuse") {
        await this.ask("inbox/refused", { sender });
        return true;
      }
      const found = await this.ask(`inbox/${notebook}/open`, {});
      await this.app.commands.execute("docmanager:open", { path: found.path });
      if (found.missing) this.lacks(found);
      return true;
    } catch (error) {
      Notification.error(this.because(error), { autoClose: 10_000 });
      return false;
    }
  }

  /** A fault in the person's language, where it is one of the server's own part. */
  because(error) {
    const words = this.words();
    return words[error.code] ?? (error.status === 503 ? words.unavailable : undefined) ?? error.message;
  }

  /** What this server does not have of what the notebook was made with, and a way to it. */
  lacks({ missing, path, environment, kernel, sender }) {
    const words = this.words();
    const text = (missing === "kernel" ? words.no_kernel : words.no_environment)
      .replace("{environment}", environment)
      .replace("{kernel}", kernel)
      .replace("{name}", sender);
    const start = {
      label: words.start_one,
      callback: () => void open(this.elsewhere(environment, path), "_blank", "noopener"),
    };
    this.apputils.Notification.warning(text, {
      autoClose: false,
      actions: missing === "environment" && this.hub ? [start] : [],
    });
  }

  /** Another server of the person's with an environment, which then opens the file there. */
  elsewhere(environment, path) {
    const name = environment.split(":")[0].replace(/[^a-z0-9]+/gi, "-").toLowerCase().slice(0, 30);
    const { origin, prefix, user } = this.hub;
    const file = path.split("/").map(encodeURIComponent).join("/");
    const next = `${prefix}user/${user}/${name}/lab/tree/${file}`;
    return `${origin}${prefix}spawn/${user}/${name}?${new URLSearchParams({ environment, next })}`;
  }

  /** A notebook that a page of the hub asks to open: ``?labcommons-inbox=ID``. */
  async linked() {
    const address = new URL(location.href);
    const asked = address.searchParams.get("labcommons-inbox");
    if (!/^[0-9]{1,9}$/.test(asked ?? "")) return;
    address.searchParams.delete("labcommons-inbox");
    history.replaceState({}, "", address);
    await this.app.restored;
    if (await this.act("open", { notebook: asked })) this.changed();
  }
}
