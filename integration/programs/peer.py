# Servers of the test network that are in no package: text protocols whose client
# speaks first, and an HTTP/1 server that accepts requests that nginx refuses.
import base64
import hashlib
import socketserver
import threading
import time
import urllib.parse


class IRC(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            words = line.decode("latin-1").split()
            if words[:1] == ["USER"]:
                self.wfile.write(b":irc.test 001 %s :Welcome\r\n" % words[1].encode())
            if words[:1] == ["PING"]:
                self.wfile.write(b":irc.test PONG irc.test :%s\r\n" % words[1].encode())
            if words[:1] == ["QUIT"]:
                return


class RTSP(socketserver.StreamRequestHandler):
    def handle(self):
        first = self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: OPTIONS, DESCRIBE\r\nX-Said: %s\r\n\r\n" % first.split()[0])


class NATS(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b'INFO {"server_name":"nats.test"}\r\n')
        for line in self.rfile:
            if line.startswith(b"PING"):
                self.wfile.write(b"PONG\r\n")
                return


# Answers that clients accept although they are not quite RFC 9112.
ANSWERS = {
    "/answer/plain": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nanswer",
    "/answer/no-reason": b"HTTP/1.1 200\r\nContent-Length: 6\r\nConnection: close\r\n\r\nanswer",
    "/answer/line-feeds": b"HTTP/1.1 200 OK\nContent-Length: 6\nConnection: close\n\nanswer",
    "/answer/http-1.0": b"HTTP/1.0 200 OK\r\n\r\nanswer",
    "/answer/chunked-capital": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nConnection: close\r\n\r\n6\r\nanswer\r\n0\r\n\r\n",
    "/answer/two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Length: 6\r\nConnection: close\r\n\r\nanswer",
    "/answer/latin-1-header": b"HTTP/1.1 200 OK\r\nX-Name: caf\xe9\r\nContent-Length: 6\r\nConnection: close\r\n\r\nanswer",
    "/answer/space-in-name": b"HTTP/1.1 200 OK\r\nX Name: a\r\nContent-Length: 6\r\nConnection: close\r\n\r\nanswer",
    "/answer/early-hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nanswer",
    "/answer/big-head": b"HTTP/1.1 200 OK\r\nX-Big: " + 40000 * b"x" + b"\r\nContent-Length: 6\r\nConnection: close\r\n\r\nanswer",
    "/answer/obs-fold": b"HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 6\r\nConnection: close\r\n\r\nanswer",
    "/answer/identity": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 6\r\nConnection: close\r\n\r\nanswer",
    "/answer/length-list": b"HTTP/1.1 200 OK\r\nContent-Length: 6, 6\r\nConnection: close\r\n\r\nanswer",
    "/answer/length-and-chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n6\r\nanswer\r\n0\r\n\r\n",
    "/answer/huge-head": b"HTTP/1.1 200 OK\r\n" + 4 * (b"X-Big: " + 60000 * b"x" + b"\r\n") + b"Content-Length: 6\r\nConnection: close\r\n\r\nanswer",
    "/answer/space-before-colon": b"HTTP/1.1 200 OK\r\nX-A : a\r\nContent-Length: 6\r\nConnection: close\r\n\r\nanswer",
    "/answer/control-character": b"HTTP/1.1 200 OK\r\nX-A: a\x01b\r\nContent-Length: 6\r\nConnection: close\r\n\r\nanswer",
    "/answer/status-600": b"HTTP/1.1 600 Odd\r\nContent-Length: 6\r\nConnection: close\r\n\r\nanswer",
    "/answer/no-length": b"HTTP/1.1 200 OK\r\n\r\nanswer",
    "/answer/status-299": b"HTTP/1.1 299 Odd\r\nContent-Length: 6\r\nConnection: close\r\n\r\nanswer",
}


class HTTP(socketserver.StreamRequestHandler):
    """Answers with the request that it received. Escapes are undone, because a proxy may spell them differently."""

    def handle(self):
        line = self.rfile.readline()
        while line in (b"\r\n", b"\n"):
            line = self.rfile.readline()
        words = line.split(b" ")
        if len(words) < 2:
            return
        method, target = words[0].decode(), words[1].strip()
        head = {}
        for h in iter(self.rfile.readline, b""):
            if not h.strip():
                break
            name, _, value = h.partition(b":")
            head[name.lower().decode()] = value.strip().decode("latin-1")
        path = target.decode("latin-1").split("?")[0]
        if path in ANSWERS:
            self.wfile.write(ANSWERS[path])
            return
        if path == "/socket" and head.get("upgrade") == "websocket":
            key = (head["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()
            accept = base64.b64encode(hashlib.sha1(key).digest())
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n" % accept)
            self.wfile.write(b"\x81\x05hello\x88\x00")
            return
        if path == "/events":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
            for i in range(3):
                self.wfile.write(b"data: %d\n\n" % i)
                time.sleep(0.2)
            return
        if "100-continue" in head.get("expect", "").lower():
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        size = 0
        if "chunked" in head.get("transfer-encoding", "").lower():
            while n := int(self.rfile.readline().split(b";")[0], 16):
                size += len(self.rfile.read(n))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            size = len(self.rfile.read(int(head.get("content-length", "0").split(",")[0])))
        body = b"%s %r, %d bytes\n" % (method.encode(), urllib.parse.unquote_to_bytes(target), size)
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


for port, handler in {554: RTSP, 4222: NATS, 6667: IRC, 8080: HTTP}.items():
    threading.Thread(target=Server(("", port), handler).serve_forever).start()
