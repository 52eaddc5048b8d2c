// A page asks on for websockets of a server that has just gone. CHP answers 404 and looks no further: a
// connection that is reset then would be an exception that nobody catches.
"use strict";
const http = require("http");

const { emit } = http.Server.prototype;
http.Server.prototype.emit = function (event, request, socket) {
  if (event === "upgrade") socket.on("error", () => socket.destroy());
  return emit.apply(this, arguments);
};
