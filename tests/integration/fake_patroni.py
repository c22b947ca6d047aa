"""Patroni's REST API as far as GET /cluster goes, with members that the test decides."""

import http.server
import json
import ssl
import threading


class FakePatroni:
    """Answers on a free loopback port until closed, with `certificate` (a pair of files) by TLS. `members` may change at
    any time."""

    def __init__(self, certificate=None):
        self.members = []
        self.asked = 0
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):  # pylint: disable=invalid-name
                owner.asked += 1
                body = json.dumps({"members": owner.members, "scope": "test"}).encode()
                self.send_response(200 if self.path == "/cluster" else 404)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):  # pylint: disable=arguments-differ
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            # The handshake belongs to the thread of the connection, and who breaks it off is not worth a line.
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True,
                                                      do_handshake_on_connect=False)
            self._server.handle_error = lambda *_: None
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def member(self, name, port, role, state="running"):
        return {"name": name, "host": "127.0.0.1", "port": port, "role": role, "state": state}

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
