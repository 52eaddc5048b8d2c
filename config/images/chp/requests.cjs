// What CHP meets in requests as an exception of its own.
"use strict";
const http = require("http");

// An address that is no UTF-8 is somewhere all the same: at who answers there, as a page that is not found.
function readable(url) {
  const [, path, query] = /^([^?]*)(.*)$/s.exec(url);
  const known = path.replace(/(?:%[0-9a-f]{2})+|%/gi, (part) => {
    try {
      decodeURIComponent(part);
      return part;
    } catch {
      return "%EF%BF%BD";
    }
  });
  return known + query;
}

const { emit } = http.Server.prototype;
http.Server.prototype.emit = function (event, request, socket) {
  if (event === "request" || event === "upgrade") request.url = readable(request.url);
  // A page asks on for websockets of a server that has just gone. CHP answers 404 and looks no further: a
  // connection that is reset then would be an exception that nobody catches.
  if (event === "upgrade") socket.on("error", () => socket.destroy());
  return emit.apply(this, arguments);
};
