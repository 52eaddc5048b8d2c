// Changing an environment: packages and text, the difference shown before anything is built.
"use strict";

(() => {
  const { ask, trouble, follow, words } = window.labEnvironments;
  const dialog = document.getElementById("edit");
  const form = document.getElementById("edit-form");
  const field = (name) => document.getElementById(`edit-${name}`);
  let asked = null; // { path, base, own }: where it is sent, from which version, whether a text is shown

  // "numpy >=2 pandas" are two packages: what begins with an operator belongs to the one before.
  const split = (text) => {
    const found = [];
    for (const part of text.split(/[\s;]+/).filter(Boolean)) {
      const open = /^[<>=!~|,\[]/.test(part) || /([,|(]|[<>=!~])$/.test(found.at(-1) ?? "");
      if (open && found.length) found.push(found.pop() + part);
      else found.push(part);
    }
    return found;
  };

  const changes = () => {
    const body = { remove: split(field("remove").value) };
    body[form.elements.with.value] = split(field("add").value);
    if (asked.own) return body;
    return { ...body, spec: field("spec").value, words: field("words").value, ...(asked.base ? { base: asked.base } : {}) };
  };

  const say = (sentence) => {
    field("trouble").textContent = sentence;
    field("trouble").hidden = !sentence;
  };

  const untold = () => {
    field("diff-box").hidden = true;
    field("build").hidden = !asked.own;
    field("show").hidden = asked.own;
    say("");
  };
  for (const name of ["spec", "words", "add", "remove"]) field(name).addEventListener("input", untold);
  form.addEventListener("change", untold);

  const open = ({ title, about, path, base, spec, text, own }) => {
    asked = { path, base, own };
    form.reset();
    field("title").textContent = title;
    field("about").textContent = about;
    field("spec").value = spec ?? "";
    field("words").value = text ?? "";
    field("text").hidden = own;
    untold();
    dialog.showModal();
    (own ? field("add") : field("spec")).focus();
  };

  // The text as it would be, with the packages put in; and how it differs.
  field("show").addEventListener("click", async () => {
    say("");
    try {
      const found = await ask("POST", `${asked.path}/preview`, changes());
      field("spec").value = found.spec;
      field("words").value = found.words;
      field("add").value = field("remove").value = "";
      const lines = found.diff.split("\n").slice(2).map((line) => Object.assign(document.createElement("span"), {
        className: line.startsWith("+") ? "lc-plus" : line.startsWith("-") ? "lc-minus" : "", textContent: `${line}\n`,
      }));
      field("diff").replaceChildren(...(found.diff ? lines : [words.sameText]));
      field("diff-box").hidden = false;
      field("build").hidden = false;
      field("show").hidden = true;
      field("build").focus();
      field("diff-box").scrollIntoView({ block: "nearest" });
    } catch (error) {
      say(error.message);
    }
  });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (field("build").hidden) return field("show").click();
    try {
      const { build } = await ask("POST", `${asked.path}/${asked.own ? "derive" : asked.base ? "edit" : "correct"}`, changes());
      dialog.close();
      follow(build);
    } catch (error) {
      say(error.message);
    }
  });

  const edit = async (where) => {
    try {
      const { environment } = await ask("GET", `environments/${where}`);
      open({
        title: words.editTitle.replace("NAME", environment.name), about: words.editAbout, path: `environments/${where}`,
        base: environment.version, spec: environment.spec, text: environment.words, own: false,
      });
    } catch (error) {
      trouble(error.message);
    }
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.edit) edit(button.dataset.edit);
    else if (button?.dataset.derive) {
      open({
        title: words.deriveTitle.replace("NAME", button.dataset.derive.split("/")[1]), about: words.deriveAbout,
        path: `environments/${button.dataset.derive}`, own: true,
      });
    }
  });

  // Of a build that failed: its text is kept by the server.
  window.labEnvironments.correct = async (build) => {
    const found = (await ask("GET", `builds/${build.id}`)).build;
    open({
      title: words.correctTitle.replace("NAME", build.name), about: words.correctAbout, path: `builds/${build.id}`,
      spec: found.spec, text: found.words, own: false,
    });
  };
})();
