/* LabCommons in JupyterLab: below a cell that could not install something, a button that makes the
 * person's own copy of the environment with the packages added, and takes the notebook to it.
 * Also says once what is left in ~/.local, which no kernel uses.
 *
 * A container for module federation, written by hand: it needs no build and shares JupyterLab's
 * own modules. */
(() => {
  'use strict';

  const MIME = 'application/vnd.labcommons.packages+json';
  const LOOK = 400; // milliseconds between two looks at a build
  const PATIENCE = 60; // looks without a kernel, once the build is done
  const WORDS = {
    zh: {
      'Make my own copy of “%1” with %2': '创建包含 %2 的“%1”副本',
      'Make my own copy of “%1” without %2': '创建不含 %2 的“%1”副本',
      'Build %2 into my environment “%1”': '把 %2 构建到我的环境“%1”中',
      'This notebook then continues in it, with a new kernel. In a terminal: %1':
        '此笔记本随后将使用它的新内核。在终端中：%1',
      'Asking …': '正在提交……',
      'This notebook uses %1 now. Run its cells again.': '此笔记本现在使用 %1。请重新运行单元格。',
      '“%1” is ready. Choose its kernel.': '“%1”已就绪。请选择它的内核。',
      'Try again': '重试',
      'Packages in ~/.local (%1) are used by no kernel here, so that every environment is what its lock says.':
        '内核不使用 ~/.local 中的软件包（%1），因此每个环境都与其锁文件一致。',
      'Move them aside': '移到一旁',
      'They are in %1 now.': '现在位于 %1。',
      'and %1 more': '等（另有 %1 个）'
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

  const later = time => new Promise(done => setTimeout(done, time));

  /* Requests to the server's part (kernels/packages_server.py). */
  function client(services, serverSettings) {
    return async (path, body) => {
      const init = body ? { method: 'POST', body: JSON.stringify(body) } : {};
      const url = `${serverSettings.baseUrl}labcommons/${path}`;
      const reply = await services.ServerConnection.makeRequest(url, init, serverSettings);
      const document = await reply.json();
      if (!reply.ok) {
        throw new Error(document.message || reply.status);
      }
      return document;
    };
  }

  const texts = value => (Array.isArray(value) ? value.filter(item => typeof item === 'string') : []);

  /* What is drawn for one offer. Whatever a notebook says is text, and nothing happens by itself. */
  function offerWidget(Widget, say, act) {
    return class extends Widget {
      constructor() {
        super();
        this.addClass('labcommons-packages');
        this.node.style.padding = '8px';
      }

      async renderModel(model) {
        const offer = model.data[MIME] || {};
        const packages = [...texts(offer.pip), ...texts(offer.add), ...texts(offer.remove)].join(', ');
        const name = String(offer.name || '');
        const kind =
          offer.source === 'personal'
            ? 'Build %2 into my environment “%1”'
            : texts(offer.remove).length
              ? 'Make my own copy of “%1” without %2'
              : 'Make my own copy of “%1” with %2';
        const button = document.createElement('button');
        button.type = 'button';
        button.className = 'jp-mod-styled jp-mod-accept';
        Object.assign(button.style, { height: 'auto', whiteSpace: 'normal', padding: '6px 12px' });
        button.textContent = say(kind, name, packages);
        const bar = document.createElement('progress');
        bar.max = 100;
        bar.hidden = true;
        bar.setAttribute('aria-label', button.textContent);
        bar.style.marginLeft = '8px';
        const words = document.createElement('div');
        words.setAttribute('role', 'status');
        words.style.marginTop = '4px';
        words.textContent = say(
          'This notebook then continues in it, with a new kernel. In a terminal: %1',
          String(offer.command || '')
        );
        this.node.replaceChildren(button, bar, words);
        button.addEventListener('click', async () => {
          button.disabled = true;
          bar.hidden = false;
          words.textContent = say('Asking …');
          try {
            words.textContent = await act(offer, this.node, ({ percent, sentence }) => {
              bar.value = percent;
              words.textContent = `${percent} %  ${sentence}`;
            });
            button.hidden = true;
          } catch (error) {
            words.textContent = error.message;
            // The same would fail again: the cell is what has to be changed.
            button.hidden = Boolean(error.final);
            button.textContent = say('Try again');
            button.disabled = false;
          }
          bar.hidden = true;
        });
      }
    };
  }

  async function copies(modules) {
    const { notebook, rendermime, services, translation, widgets } = modules;
    return {
      id: '@labcommons/packages:copies',
      description: "Makes one's own copy of an environment with packages added.",
      autoStart: true,
      requires: [rendermime.IRenderMimeRegistry, notebook.INotebookTracker],
      optional: [translation.ITranslator],
      activate: (app, registry, tracker, translator) => {
        const say = wordsFor((translator && translator.languageCode) || 'en');
        const { kernelspecs, serverSettings } = app.serviceManager;
        const ask = client(services, serverSettings);

        /* The build, then its kernel; a server that does not answer once is asked again. */
        async function finished(id, show) {
          let missed = 0;
          for (let looks = 0; ; ) {
            let found;
            try {
              found = await ask(`packages/${id}`);
              missed = 0;
            } catch (error) {
              if (++missed > 10) {
                throw error;
              }
              await later(LOOK);
              continue;
            }
            if (found.state === 'done' && (found.kernel || ++looks > PATIENCE)) {
              return found;
            }
            if (!['queued', 'running', 'done'].includes(found.state)) {
              throw Object.assign(new Error(found.sentence || found.state), { final: found.again === false });
            }
            show(found);
            await later(LOOK);
          }
        }

        async function act(offer, node, show) {
          const { source, name, pip, add, remove, channels } = offer;
          const asked = await ask('packages', { source, name, pip, add, remove, channels });
          // One's own copy may have it already.
          const { kernel, name: made } = asked.kernel ? asked : await finished(asked.id, show);
          const panel = tracker.find(each => each.content.node.contains(node));
          if (!kernel || !panel) {
            return say('“%1” is ready. Choose its kernel.', made);
          }
          await kernelspecs.refreshSpecs();
          const context = panel.sessionContext;
          const current = context.session && context.session.kernel;
          if (current && current.name === kernel.name) {
            await current.restart();
          } else {
            await context.changeKernel({ name: kernel.name });
          }
          return say('This notebook uses %1 now. Run its cells again.', kernel.display_name);
        }

        const Offer = offerWidget(widgets.Widget, say, act);
        registry.addFactory(
          { safe: false, mimeTypes: [MIME], defaultRank: 1, createRenderer: () => new Offer() },
          1
        );
      }
    };
  }

  async function home({ apputils, services, translation }) {
    return {
      id: '@labcommons/packages:home',
      description: 'Says what is left in ~/.local, once for each that is there.',
      autoStart: true,
      optional: [translation.ITranslator],
      activate: (app, translator) => {
        const say = wordsFor((translator && translator.languageCode) || 'en');
        const ask = client(services, app.serviceManager.serverSettings);
        const { Notification } = apputils;
        void app.restored.then(async () => {
          const { found } = await ask('local');
          const names = [...new Set(found.flatMap(one => one.packages))];
          const key = 'labcommons-local:' + names.join(' ');
          if (found.length === 0 || localStorage.getItem('labcommons-local') === key) {
            return;
          }
          const shown = names.slice(0, 5).join(', ');
          const more = names.length > 5 ? ' ' + say('and %1 more', names.length - 5) : '';
          const text = say(
            'Packages in ~/.local (%1) are used by no kernel here, so that every environment is what its lock says.',
            shown + more
          );
          const aside = async () => {
            try {
              const { folder } = await ask('local', {});
              Notification.success(say('They are in %1 now.', folder), { autoClose: 15000 });
            } catch (error) {
              Notification.error(error.message, { autoClose: 15000 });
            }
          };
          const id = Notification.warning(text, {
            autoClose: false,
            actions: [{ label: say('Move them aside'), callback: () => void aside() }]
          });
          Notification.manager.changed.connect((_, change) => {
            if (change.type === 'removed' && change.notification.id === id) {
              localStorage.setItem('labcommons-local', key); // seen
            }
          });
        }).catch(() => undefined);
      }
    };
  }

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB['@labcommons/packages'] = {
    init: async shareScope => {
      scope = shareScope;
    },
    get: async () => {
      const plugins = [];
      try {
        const names = ['apputils', 'notebook', 'rendermime', 'services', 'translation'];
        const found = await Promise.all(names.map(name => shared(`@jupyterlab/${name}`)));
        const modules = Object.fromEntries(names.map((name, index) => [name, found[index]]));
        modules.widgets = await shared('@lumino/widgets');
        plugins.push(await copies(modules), await home(modules));
      } catch (error) {
        console.warn('LabCommons cannot offer copies of environments:', error);
      }
      return () => ({ __esModule: true, default: plugins });
    }
  };
})();
