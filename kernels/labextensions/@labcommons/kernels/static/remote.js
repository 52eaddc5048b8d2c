/* LabCommons in JupyterLab: the launcher shows an environment as soon as its kernel is there, and
 * a notebook whose kernel is missing or cannot start says so where the person is.
 *
 * A container for module federation, written by hand: it needs no build and shares JupyterLab's
 * own modules. */
(() => {
  'use strict';

  const SCHEMA = 'https://schema.labcommons.invalid/kernels/v1';
  const EXPLAINS = 'labcommons-explanation';
  const WORDS = {
    zh: {
      'Kernel not found': '找不到内核',
      'The kernel %1 of this notebook is not here: its environment was removed or renamed, or you are not in the team or course it belongs to.':
        '找不到此笔记本的内核 %1：其环境已被删除或重命名，或者您不在它所属的团队或课程中。',
      'This notebook asks for the kernel “%1”, which is not here. It runs in %2.':
        '此笔记本要求的内核“%1”在此处不存在，现改用 %2 运行。',
      'This notebook names no kernel. It runs in %1.': '此笔记本未指定内核，现使用 %1 运行。',
      'The kernel %1 of this notebook is here under another name: %2.':
        '此笔记本的内核 %1 在此处使用另一名称：%2。',
      'The nearest is %1.': '最接近的是 %1。',
      'It lacks %1.': '它缺少 %1。',
      'It has %1.': '它包含 %1。',
      'Choose another': '选择其他内核',
      'Use %1': '使用 %1',
      'This kernel cannot start. Run a cell to see why, and what to do.':
        '此内核无法启动。运行任一单元格即可查看原因和解决办法。'
    }
  };

  let scope = {};

  /* One of JupyterLab's own modules. */
  async function shared(name) {
    const versions = Object.values(scope[name] || {});
    if (versions.length === 0) {
      throw new Error(`${name} is not shared by this JupyterLab`);
    }
    return (await versions[0].get())();
  }

  function wordsFor(language) {
    const words = WORDS[language.slice(0, 2).toLowerCase()] || {};
    return (text, ...values) =>
      values.reduce((said, value, index) => said.replaceAll(`%${index + 1}`, value), words[text] || text);
  }

  /* The names that a notebook's code imports: its packages, near enough. */
  function imported(model) {
    const names = new Set();
    for (const cell of model.sharedModel.cells) {
      if (cell.cell_type === 'code') {
        for (const match of cell.getSource().matchAll(/^[ \t]*(?:from[ \t]+(\w+)|import[ \t]+([^#;\n]+))/gm)) {
          for (const part of (match[1] || match[2]).split(',')) {
            names.add(part.trim().split(/[\s.]/)[0]);
          }
        }
      }
    }
    return [...names].slice(0, 50);
  }

  const live = {
    id: '@labcommons/kernels:live',
    description: 'Reads the list of kernels anew when the server says that it has changed.',
    autoStart: true,
    activate: app => {
      app.serviceManager.events.stream.connect((_, event) => {
        if (event.schema_id === SCHEMA) {
          void app.serviceManager.kernelspecs.refreshSpecs();
        }
      });
    }
  };

  async function missing(apputils, notebook, services, translation) {
    const { Dialog, Notification, showDialog } = apputils;
    return {
      id: '@labcommons/kernels:missing',
      description: 'Tells what to do about a kernel that is missing or cannot start.',
      autoStart: true,
      requires: [notebook.INotebookTracker],
      optional: [translation.ITranslator],
      activate: (app, tracker, translator) => {
        const language = (translator && translator.languageCode) || 'en';
        const say = wordsFor(language);
        const [between, comma] = language.startsWith('zh') ? ['', '、'] : [' ', ', '];
        const { kernelspecs, serverSettings, sessions } = app.serviceManager;

        /* The name of a notebook's kernel where it is not in the list: empty where it has none.
         * Of a new notebook JupyterLab asks itself. */
        async function missingName(panel) {
          const said = (panel.model.getMetadata('kernelspec') || {}).name;
          const name = typeof said === 'string' ? said : '';
          const { id, shouldStart } = panel.sessionContext.kernelPreference;
          const isNew = [...panel.model.sharedModel.cells].every(cell => cell.getSource() === '');
          if (id || shouldStart === false || (!name && isNew)) {
            return null;
          }
          await Promise.all([kernelspecs.ready, sessions.ready]);
          const runs = [...sessions.running()].some(each => each.path === panel.context.path);
          return runs || (kernelspecs.specs && kernelspecs.specs.kernelspecs[name]) ? null : name;
        }

        async function nearestTo(name, model) {
          const about = model.getMetadata('language_info') || {};
          const query = new URLSearchParams({
            name,
            language: about.name || (model.getMetadata('kernelspec') || {}).language || '',
            python: about.name === 'python' ? about.version || '' : '',
            packages: imported(model).join(',')
          });
          const url = `${serverSettings.baseUrl}labcommons/kernels/nearest?${query}`;
          const reply = await services.ServerConnection.makeRequest(url, {}, serverSettings);
          return reply.ok ? reply.json() : {};
        }

        function use(context, name) {
          context.kernelPreference = { ...context.kernelPreference, name };
        }

        /* Where a name of elsewhere means one kernel, say which; else ask before one is started in
         * place of a missing one. */
        async function suggest(panel) {
          const name = await missingName(panel);
          if (name === null) {
            return;
          }
          const { missing: gone, taken, nearest } = await nearestTo(name, panel.model);
          if (gone === false) {
            await kernelspecs.refreshSpecs(); // made since the list was read
          }
          if (taken && !panel.isDisposed) {
            use(panel.sessionContext, taken.name);
            const text = taken.exactly
              ? say('The kernel %1 of this notebook is here under another name: %2.', name, taken.display_name)
              : name
                ? say('This notebook asks for the kernel “%1”, which is not here. It runs in %2.', name, taken.display_name)
                : say('This notebook names no kernel. It runs in %1.', taken.display_name);
            Notification.info(text, { autoClose: 15000 });
            return;
          }
          if (!gone || !nearest || panel.isDisposed) {
            return;
          }
          const shown = nearest.display_name;
          const body = [
            say('The kernel %1 of this notebook is not here: its environment was removed or renamed, or you are not in the team or course it belongs to.', name),
            say('The nearest is %1.', shown)
          ];
          if (nearest.lacks.length > 0) {
            body.push(say('It lacks %1.', nearest.lacks.join(comma)));
          } else if (nearest.has.length > 0) {
            body.push(say('It has %1.', nearest.has.join(comma)));
          }
          const chosen = await showDialog({
            title: say('Kernel not found'),
            body: body.join(between),
            buttons: [
              Dialog.cancelButton({ label: say('Choose another') }),
              Dialog.okButton({ label: say('Use %1', shown) })
            ]
          });
          if (chosen.button.accept) {
            use(panel.sessionContext, nearest.name);
          }
        }

        async function explain(kernel) {
          const info = await kernel.info;
          if (info.implementation === EXPLAINS) {
            const text = say('This kernel cannot start. Run a cell to see why, and what to do.');
            Notification.warning(text, { autoClose: 20000 });
          }
        }

        tracker.widgetAdded.connect((_, panel) => {
          const context = panel.sessionContext;
          context.kernelChanged.connect((__, change) => {
            if (change.newValue) {
              explain(change.newValue).catch(() => undefined);
            }
          });
          // JupyterLab would take any kernel of the same language without a word where there is
          // but one, and show a bare list otherwise.
          const initialize = context.initialize.bind(context);
          context.initialize = async () => {
            try {
              await panel.context.ready;
              await suggest(panel);
            } catch (error) {
              console.warn('LabCommons:', error);
            }
            return initialize();
          };
        });
      }
    };
  }

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB['@labcommons/kernels'] = {
    init: async shareScope => {
      scope = shareScope;
    },
    get: async () => {
      const plugins = [live];
      try {
        const names = ['apputils', 'notebook', 'services', 'translation'];
        plugins.push(await missing(...(await Promise.all(names.map(n => shared(`@jupyterlab/${n}`))))));
      } catch (error) {
        console.warn('LabCommons cannot tell about missing kernels:', error);
      }
      return () => ({ __esModule: true, default: plugins });
    }
  };
})();
