/* Run a notebook as a job, without a server: the page Jobs, with the notebook in its form. */
const COMMAND = "labcommons:run-as-job";
const CHOSEN = "labcommons:run-as-job-chosen";

export class Jobs {
  /* `opened` and `chosen` give the path of the notebook that is meant, or null; `hub` may be null. */
  constructor({ app, hub, opened, chosen, palette, words }) {
    Object.assign(this, { app, hub, opened, chosen, palette, words });
  }

  /** Once its words are known: in the menus of notebooks, and in the palette. */
  ready() {
    const { app, palette } = this;
    if (!this.hub || app.commands.hasCommand(COMMAND)) return;
    for (const [command, path] of [[COMMAND, this.opened], [CHOSEN, this.chosen]]) {
      app.commands.addCommand(command, {
        label: () => this.words().run_as_job,
        isEnabled: () => Boolean(path()),
        execute: () => void open(this.page(path()), "_blank", "noopener"),
      });
    }
    app.contextMenu.addItem({ command: CHOSEN, selector: '.jp-DirListing-item[data-file-type="notebook"]', rank: 12 });
    app.contextMenu.addItem({ command: COMMAND, selector: ".jp-Notebook", rank: 61 });
    palette?.addItem({ command: COMMAND, category: "File Operations" });
  }

  page(path) {
    const { origin, prefix } = this.hub;
    const page = new URL(`${prefix}../services/labcommons/jobs`, origin || location.origin);
    page.search = new URLSearchParams({ notebook: path });
    page.hash = "new";
    return page;
  }
}
