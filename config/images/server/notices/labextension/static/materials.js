/* Course materials in JupyterLab: what came of bringing the person's copy up to date, and a command
 * that does it. Who has no course with materials is asked once. */
const AGAIN = 2_000; // milliseconds between two looks while one is under way
const LONGEST = 140; // characters of a notification that JupyterLab shows
const COMMAND = "labcommons:update-materials";
const KEY = "labcommons-materials";

export class Materials {
  /* `all` shows a text that is too long for a notification. */
  constructor({ app, ask, notification, palette, words, all }) {
    Object.assign(this, { app, ask, notification, palette, words, all });
  }

  async start() {
    try {
      const found = await this.ask("materials");
      if (found.courses.length) this.offer(found);
      this.tell(found);
    } catch (error) {
      console.debug(`labcommons-materials: ${error.message}`);
    }
  }

  offer({ words }) {
    if (this.app.commands.hasCommand(COMMAND)) return;
    this.app.commands.addCommand(COMMAND, { label: words.command, execute: () => this.update() });
    this.palette?.addItem({ command: COMMAND, category: words.title });
  }

  async update() {
    try {
      const found = await this.ask("materials", {});
      this.tell(found, true);
      if (!found.courses.some((one) => one.news.length)) this.notification.success(found.words.done, { autoClose: 5_000 });
    } catch (error) {
      this.notification.error(error.message, { autoClose: 10_000 });
    }
  }

  /** News of each update once; all of it to who has asked. */
  tell(found, asked = false) {
    for (const one of found.courses) {
      const key = `${KEY}-${one.name}`;
      if (one.busy || !one.news.length || (!asked && sessionStorage.getItem(key) === String(one.at))) continue;
      sessionStorage.setItem(key, String(one.at));
      for (const news of one.news) this.show(news, found.words.title);
    }
    if (found.courses.some((one) => one.busy)) setTimeout(() => void this.start(), AGAIN);
  }

  show({ level, sentence }, title) {
    const actions = sentence.length <= LONGEST ? [] : [{
      label: this.words().more ?? "…",
      displayType: "link",
      callback: (event) => {
        event.preventDefault();
        this.all({ server: title, sentence });
      },
    }];
    this.notification.emit(sentence, level, { autoClose: false, actions });
  }
}
