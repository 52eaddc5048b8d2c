// What CHP meets in requests as an exception of its own.
"use strict";
const { EventEmitter } = require("events");
const http = require("http");
const net = require("net");

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

// CHP refuses a websocket with an answer of this form, and then forgets the connection: whoever asked has it
// open for ever.
const REFUSED = /^HTTP\/1\.[01] [45]\d\d\r\nContent-Length: 0\r\n\r\n$/;

function endsWhenRefused(socket) {
  const { write } = socket;
  socket.write = function (head) {
    socket.write = write;
    return REFUSED.test(head) ? socket.end(head) : write.apply(socket, arguments);
  };
}

const { emit } = http.Server.prototype;
http.Server.prototype.emit = function (event, request, socket) {
  if (event === "request" || event === "upgrade") request.url = readable(request.url);
  if (event === "upgrade") endsWhenRefused(socket);
  return emit.apply(this, arguments);
};

// A connection that is reset while nobody looks at it (a server ends, between two of its answers) is over,
// and nothing else is.
net.Socket.prototype.emit = function (event) {
  if (event === "error" && this.listenerCount("error") === 0) {
    this.destroy();
    return false;
  }
  return EventEmitter.prototype.emit.apply(this, arguments);
};
