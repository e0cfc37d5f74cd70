"""Clients of the machine's ports."""

import base64
import socket
import ssl
import threading
import urllib.request

from machine import eventually


class Client:
    """An SMTP client that says what it is told to."""

    def __init__(self, port, timeout=60):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        if port == 465:
            self._encrypt()
        self.lines = self.socket.makefile("rb")
        self.greeting = self.reply()

    def _encrypt(self):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.socket = context.wrap_socket(self.socket)

    def reply(self):
        while True:
            line = self.lines.readline().decode()
            if line[3:4] != "-":
                return line

    def say(self, line, code):
        self.socket.sendall(f"{line}\r\n".encode())
        reply = self.reply()
        assert reply.startswith(code), f"{line}: {reply!r}"

    def log_in(self, credential, is_plain=False):
        self.say("EHLO client.example", "250")
        if not isinstance(self.socket, ssl.SSLSocket) and not is_plain:
            self.say("STARTTLS", "220")
            self._encrypt()
            self.lines = self.socket.makefile("rb")
            self.say("EHLO client.example", "250")
        plain = base64.b64encode("\0{}\0{}".format(*credential).encode())
        self.say(f"AUTH PLAIN {plain.decode()}", "235")

    def send(self, subject):
        self.say("MAIL FROM:<ann@example.org>", "250")
        self.say("RCPT TO:<ben@mail.example.org>", "250")
        self.say("DATA", "354")
        self.say(f"Subject: {subject}\r\n\r\nhello\r\n.", "250")
        self.say("QUIT", "221")

    def close(self):
        self.socket.close()


class Knocking:
    """Connects all the time; no connection may be refused."""

    def __enter__(self):
        self.stop, self.refused, self.served = threading.Event(), [], 0
        self.threads = [threading.Thread(target=self._knock) for _ in range(4)]
        for thread in self.threads:
            thread.start()
        eventually("clients are served", lambda: self.served > 4)
        return self

    def _knock(self):
        while not self.stop.is_set():
            try:
                client = Client(587)
                # A connection that a killed process had accepted ends without a greeting.
                self.served += client.greeting.startswith("220")
                client.close()
            except ConnectionRefusedError as error:
                self.refused.append(error)
            except OSError:
                pass

    def __exit__(self, *_):
        before = self.served
        eventually("clients are served again", lambda: self.served > before + 4)
        self.stop.set()
        for thread in self.threads:
            thread.join()
        assert not self.refused, f"{len(self.refused)} of {self.served} connections refused"


def is_open(port):
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
        return True
    except ConnectionRefusedError:
        return False


def scrape():
    with urllib.request.urlopen("http://127.0.0.1:9587/metrics", timeout=10) as answer:
        return answer.read().decode()
