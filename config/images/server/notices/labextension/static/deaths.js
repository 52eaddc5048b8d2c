/* Why a kernel died, in place of "appears to have died", in the dialog that JupyterLab shows. */
const PATIENCE = 3_000; // milliseconds in which JupyterLab shows its dialog

export class Deaths {
  /* `reason` gives the notice about a kernel's death, or null. */
  constructor({ Dialog, reason, tell }) {
    Object.assign(this, { Dialog, reason, tell });
  }

  follow(tracker) {
    tracker.forEach((panel) => this.watch(panel.sessionContext));
    tracker.widgetAdded.connect((_, panel) => this.watch(panel.sessionContext));
  }

  watch(context) {
    context.statusChanged.connect((_, status) => {
      if (status === "autorestarting" || status === "dead") void this.died(context);
    });
  }

  async died(context) {
    const kernel = context.session?.kernel?.id;
    if (!kernel) return;
    const path = context.session.path;
    const notice = await this.reason(kernel);
    if (!notice) return;
    const until = Date.now() + PATIENCE;
    let dialog = null;
    while (!(dialog = this.dialog(path)) && Date.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    if (dialog) this.say(dialog, notice);
    else this.tell(notice);
  }

  dialog(path) {
    return this.Dialog.tracker.find(
      (one) => one.isVisible && one.node.querySelector(".jp-Dialog-body")?.textContent.includes(path),
    );
  }

  say(dialog, notice) {
    const body = dialog.node.querySelector(".jp-Dialog-body");
    const lines = [notice.sentence, notice.more].filter(Boolean);
    body.replaceChildren(
      ...lines.map((line) => Object.assign(document.createElement("p"), { textContent: line })),
    );
    body.classList.add("labcommons-death");
    // Read out again: the dialog was open before its reason was known.
    body.setAttribute("role", "alert");
  }
}
