// Every page: the language switch, and questions before something is ended.
"use strict";

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-language]");
  if (!button) return;
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie =
    `${button.dataset.cookie}=${button.dataset.language}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
  // A page that answered a form is asked for anew: reloading it would send the form again.
  if (document.documentElement.dataset.method === "POST") location.replace(location.href);
  else location.reload();
});

// Times in sentences are the reader's own.
{
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "UTC";
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `labcommons-tz=${zone}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
}

// A form is sent once; coming back with the browser's back button allows it again.
document.addEventListener("submit", (event) => {
  const button = event.target.querySelector("button[type=submit][data-busy]");
  if (!button || event.defaultPrevented) return;
  if (button.getAttribute("aria-busy") === "true") {
    event.preventDefault();
    return;
  }
  button.setAttribute("aria-busy", "true");
  const words = button.querySelector("[data-words]");
  words.dataset.idle = words.textContent;
  words.textContent = button.dataset.busy;
});

window.addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  for (const button of document.querySelectorAll("button[aria-busy=true]")) {
    button.removeAttribute("aria-busy");
    const words = button.querySelector("[data-words]");
    words.textContent = words.dataset.idle;
  }
});

document.querySelector("[data-focus]")?.focus();
