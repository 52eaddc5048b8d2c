/* LabCommons in JupyterLab: front ends come with environments, and a page has those that there were
 * when it was loaded. This tells of new ones, of versions that do not fit the kernel, and below a cell
 * what to add where a widget's front end is missing.
 *
 * A container for module federation, written by hand: it needs no build and shares JupyterLab's
 * own modules. */
(() => {
  'use strict';

  const SCHEMA = 'https://schema.labcommons.invalid/front-ends/v1';
  const VIEW = 'application/vnd.jupyter.widget-view+json';
  const WIDGETS = '@jupyter-widgets/jupyterlab-manager';
  const WORDS = {
    zh: {
      'Parts of widgets for the browser have come with an environment: %1. Load this page again to use them.':
        '某个环境带来了新的浏览器组件：%1。重新加载此页面即可使用。',
      'Load again': '重新加载',
      'This page has %1 %2 (of %3), and the environment of this kernel has %4: its widgets may not work. Choose that environment when you start your server, or give both the same version.':
        '此页面使用的是 %1 %2（来自 %3），而此内核的环境中是 %4：其组件可能无法正常工作。请在启动服务器时选择该环境，或让两者使用相同版本。',
      'This kernel’s environment has ipywidgets 7, whose widgets JupyterLab 4 does not show: put “ipywidgets >=8” into it.':
        '此内核的环境中是 ipywidgets 7，而此处的 JupyterLab 仅支持 ipywidgets 8：其组件无法显示。请在环境中加入“ipywidgets >=8”。',
      'This widget is not shown: its part for the browser, %1, is not here. Add “%2” to the environment %3, then load this page again and run the cell again.':
        '此组件无法显示：缺少其浏览器组件 %1。请将“%2”加入环境 %3，然后重新加载此页面并再次运行该单元格。',
      'This widget is not shown: its part for the browser, %1, has come since this page was loaded. Load this page again, then run the cell again.':
        '此组件无法显示：其浏览器组件 %1 是在此页面加载之后才出现的。请重新加载此页面，然后再次运行该单元格。',
      'This widget is not shown: its part for the browser, %1, cannot be used: %2.':
        '此组件无法显示：其浏览器组件 %1 不可用：%2。',
      'This widget is not shown: its part for the browser, %1, comes with the environment %3, and this site takes such parts from environments of its administrators alone. Ask an administrator for %2.':
        '此组件无法显示：其浏览器组件 %1 来自环境 %3，而本站仅采用管理员环境中的此类组件。如需 %2，请联系管理员。',
      'the server': '服务器'
    }
  };
  /* What to install for a module, where it has another name. */
  const PACKAGES = {
    '@jupyter-widgets/base': 'ipywidgets >=8',
    '@jupyter-widgets/controls': 'ipywidgets >=8',
    '@jupyter-widgets/output': 'ipywidgets >=8',
    '@jupyter-widgets/jupyterlab-sidecar': 'sidecar',
    '@bokeh/jupyter_bokeh': 'jupyter_bokeh',
    'catboost-widget': 'catboost',
    'ipyvuetify': 'ipyvuetify',
    'jupyter-cytoscape': 'ipycytoscape',
    'jupyter-gmaps': 'gmaps',
    'jupyter-leaflet': 'ipyleaflet',
    'jupyter-matplotlib': 'ipympl',
    'jupyter-threejs': 'pythreejs',
    'jupyter-vue': 'ipyvue',
    'jupyter-vuetify': 'ipyvuetify',
    'jupyter-webrtc': 'ipywebrtc',
    'jupyterlab-plotly': 'plotly',
    'nglview-js-widgets': 'nglview',
    'plotlywidget': 'plotly'
  };
  /* Other output that is nothing without its front end. */
  const TYPES = {
    'application/vnd.plotly.v1+json': 'jupyterlab-plotly',
    'application/vnd.bokehjs_exec.v0+json': '@bokeh/jupyter_bokeh',
    'application/vnd.holoviews_exec.v0+json': '@pyviz/jupyterlab_pyviz'
  };
  PACKAGES['@pyviz/jupyterlab_pyviz'] = 'pyviz_comms';

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

  /* What two versions have in common where one may stand for the other: ^1.2, ^0.2. */
  function line(version) {
    const [major, minor] = version.split('.');
    return Number(major) > 0 ? major : `${major}.${minor}`;
  }

  async function plugin(apputils, coreutils, notebook, rendermime, services, translation, widgets) {
    const { Notification } = apputils;
    return {
      id: '@labcommons/front-ends:tell',
      description: 'Tells of front ends that are new, of another version, or missing.',
      autoStart: true,
      requires: [notebook.INotebookTracker, rendermime.IRenderMimeRegistry],
      optional: [translation.ITranslator],
      activate: (app, tracker, registry, translator) => {
        const say = wordsFor((translator && translator.languageCode) || 'en');
        const { events, kernelspecs, serverSettings } = app.serviceManager;
        const loaded = JSON.parse(coreutils.PageConfig.getOption('labcommonsFrontEnds') || '{}');
        const told = new Set();

        async function report() {
          const url = `${serverSettings.baseUrl}labcommons/front-ends`;
          const reply = await services.ServerConnection.makeRequest(url, {}, serverSettings);
          return reply.json();
        }

        function once(key, tell) {
          if (!told.has(key)) {
            told.add(key);
            tell();
          }
        }

        async function tellNew() {
          const { shown } = await report();
          const fresh = shown.filter(({ name, version }) => loaded[name] !== version);
          const names = fresh.map(({ name, version }) => `${name} ${version}`).join(', ');
          if (names) {
            once(names, () =>
              Notification.info(
                say('Parts of widgets for the browser have come with an environment: %1. Load this page again to use them.', names),
                { autoClose: false, actions: [{ label: say('Load again'), callback: () => location.reload() }] }
              )
            );
          }
        }

        /* What a kernel's environment has in another version than this page. */
        async function tellPassed(kernel) {
          const prefix = prefixOf(kernel.name);
          for (const { name, version, prefix: of, taken } of (await report()).passed) {
            if (of !== prefix || line(version) === line(taken.version)) {
              continue;
            }
            const where = taken.environment || say('the server');
            const text =
              name === WIDGETS
                ? say('This kernel’s environment has ipywidgets 7, whose widgets JupyterLab 4 does not show: put “ipywidgets >=8” into it.')
                : say('This page has %1 %2 (of %3), and the environment of this kernel has %4: its widgets may not work. Choose that environment when you start your server, or give both the same version.', name, taken.version, where, version);
            once(`${of} ${name}`, () => Notification.warning(text, { autoClose: false }));
          }
        }

        function prefixOf(kernelName) {
          const spec = kernelspecs.specs && kernelspecs.specs.kernelspecs[kernelName];
          return ((spec && spec.metadata && spec.metadata.labcommons) || {}).prefix;
        }

        /* Why a module is not here and what to do about it. */
        async function why(module, kernelName) {
          const wanted = PACKAGES[module] || module;
          const spec = kernelspecs.specs && kernelspecs.specs.kernelspecs[kernelName];
          const prefix = prefixOf(kernelName);
          const where = (spec && spec.display_name) || kernelName || '–';
          const { shown, refused, left_out: left, passed } = await report();
          const mine = each => each.name === module && (!prefix || each.prefix === prefix);
          if (passed.some(each => each.name === WIDGETS && each.prefix === prefix && line(each.version) !== line(each.taken.version))) {
            return say('This kernel’s environment has ipywidgets 7, whose widgets JupyterLab 4 does not show: put “ipywidgets >=8” into it.');
          }
          if (shown.some(each => each.name === module && loaded[module] !== each.version)) {
            return say('This widget is not shown: its part for the browser, %1, has come since this page was loaded. Load this page again, then run the cell again.', module);
          }
          const other = passed.find(mine);
          if (other) {
            const from = other.taken.environment || say('the server');
            return say('This page has %1 %2 (of %3), and the environment of this kernel has %4: its widgets may not work. Choose that environment when you start your server, or give both the same version.', module, other.taken.version, from, other.version);
          }
          const bad = refused.find(mine);
          if (bad) {
            return say('This widget is not shown: its part for the browser, %1, cannot be used: %2.', module, bad.reason);
          }
          if (left.some(mine)) {
            return say('This widget is not shown: its part for the browser, %1, comes with the environment %3, and this site takes such parts from environments of its administrators alone. Ask an administrator for %2.', module, wanted, where);
          }
          return say('This widget is not shown: its part for the browser, %1, is not here. Add “%2” to the environment %3, then load this page again and run the cell again.', module, wanted, where);
        }

        function kernelOf(node) {
          const panel = tracker.find(each => each.node.contains(node));
          const kernel = panel && panel.sessionContext.session && panel.sessionContext.session.kernel;
          return kernel ? kernel.name : '';
        }

        function tellIn(node, module) {
          const said = document.createElement('div');
          said.className = 'labcommons-missing-front-end';
          said.setAttribute('role', 'status');
          Object.assign(said.style, { padding: '4px 0', fontFamily: 'var(--jp-ui-font-family)', whiteSpace: 'normal' });
          why(module, kernelOf(node)).then(
            text => {
              said.textContent = text;
            },
            () => undefined
          );
          node.replaceChildren(said);
        }

        /* The widgets' own front end shows a picture in the place of a model that it has no class
         * for; clicked upon, it says of which module. */
        function look(node) {
          for (const error of node.querySelectorAll('.jupyter-widgets-error-widget')) {
            if (error.dataset.labcommons) {
              continue;
            }
            error.dataset.labcommons = 'seen';
            if (error.classList.contains('icon-error')) {
              error.firstElementChild.dispatchEvent(new MouseEvent('click', { bubbles: true }));
            }
            const text = error.textContent || '';
            const match = text.match(/from module '([^']+)'/);
            if (match && /\bregistered\b/.test(text)) {
              tellIn(error, match[1]);
            } else if (error.classList.contains('text-error')) {
              error.dispatchEvent(new MouseEvent('dblclick', { bubbles: true })); // as it was
            }
          }
        }
        const observer = new MutationObserver(changes => {
          for (const { target } of changes) {
            const output = target instanceof Element && (target.closest('.jp-OutputArea') || target);
            if (output) {
              look(output);
            }
          }
        });

        /* Output of a type that nobody here can show: after all others, before the plain text. */
        class Fallback extends widgets.Widget {
          constructor(module) {
            super();
            this.module = module;
          }
          async renderModel(model) {
            const module = this.module || 'ipywidgets';
            requestAnimationFrame(() => tellIn(this.node, module));
          }
        }
        const rank = 119; // before text/plain, which is at 120
        for (const [type, module] of Object.entries({ ...TYPES, [VIEW]: '' })) {
          if (!registry.mimeTypes.includes(type)) {
            registry.addFactory({ safe: true, mimeTypes: [type], createRenderer: () => new Fallback(module) }, rank);
          }
        }

        events.stream.connect((_, event) => {
          if (event.schema_id === SCHEMA) {
            tellNew().catch(error => console.warn('LabCommons:', error));
          }
        });
        tracker.widgetAdded.connect((_, panel) => {
          observer.observe(panel.node, { childList: true, subtree: true });
          panel.sessionContext.kernelChanged.connect((__, { newValue }) => {
            if (newValue) {
              tellPassed(newValue).catch(error => console.warn('LabCommons:', error));
            }
          });
        });
      }
    };
  }

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB['@labcommons/front-ends'] = {
    init: async shareScope => {
      scope = shareScope;
    },
    get: async () => {
      const plugins = [];
      try {
        const names = ['apputils', 'coreutils', 'notebook', 'rendermime', 'services', 'translation'];
        const modules = names.map(name => shared(`@jupyterlab/${name}`));
        plugins.push(await plugin(...(await Promise.all([...modules, shared('@lumino/widgets')]))));
      } catch (error) {
        console.warn('LabCommons cannot tell about front ends:', error);
      }
      return () => ({ __esModule: true, default: plugins });
    }
  };
})();
