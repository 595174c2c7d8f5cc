"""One POP3 session by Python's poplib, as told on standard input.

In: JSON {"host", "port", "user", "password" or "apop", "commands": [[method, argument, ...], ...]},
and "transport" ("plain", "STLS", "POP3S") with "ca" (a PEM file).
Out: JSON {"greeting", "results": [...]} or {"error": the server's text}. Octets go out as Latin-1 text.
"""

import json
import poplib
import ssl
import sys


def printable(value):
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, (list, tuple)):
        return [printable(item) for item in value]
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    return value


def connect(order):
    server = (order["host"], order["port"])
    transport = order.get("transport", "plain")
    if transport == "plain":
        return poplib.POP3(*server, timeout=30)
    context = ssl.create_default_context(cafile=order["ca"])
    if transport == "POP3S":
        return poplib.POP3_SSL(*server, timeout=30, context=context)
    client = poplib.POP3(*server, timeout=30)
    client.stls(context)
    return client


def main():
    order = json.load(sys.stdin)
    client = connect(order)
    answer = {"greeting": printable(client.getwelcome()), "results": []}
    try:
        if "apop" in order:
            client.apop(order["user"], order["apop"])
        else:
            client.user(order["user"])
            client.pass_(order["password"])
        for method, *arguments in order["commands"]:
            answer["results"].append(printable(getattr(client, method)(*arguments)))
    except poplib.error_proto as error:
        answer["error"] = printable(error.args[0])
    finally:
        client.close()
    json.dump(answer, sys.stdout)


main()
