"""One POP3 session by Python's poplib, as told on standard input.

In: JSON {"host", "port", "user", "password" or "apop", "commands": [[method, argument, ...], ...]}.
Out: JSON {"greeting", "results": [...]} or {"error": the server's text}. Octets go out as Latin-1 text.
"""

import json
import poplib
import sys


def printable(value):
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, (list, tuple)):
        return [printable(item) for item in value]
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    return value


def main():
    order = json.load(sys.stdin)
    client = poplib.POP3(order["host"], order["port"], timeout=30)
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
