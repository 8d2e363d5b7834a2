"""Calls of gRPC on a script, by grpcio.

    grpc_calls.py ADDRESS AUTHORITY CA.pem < calls.json

Each line of standard input is a call: ["Hello", {…}], ["Count", {…}], ["Talk", ["a", "b", …]], or
["load", seconds, per_second], which says hello all the time. What came is printed as JSON, one a line:
{"answers": […], "code": "OK", "trailers": {…}}.
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc

LIMIT = 10.0  # seconds for one call


def call(channel: grpc.Channel, method: str, argument: Any) -> dict[str, Any]:
    path = f"/shop.Greeter/{method}"
    answers: list[Any] = []
    try:
        match method:
            case "Hello":
                asked = channel.unary_unary(path).with_call(json.dumps(argument).encode(), timeout=LIMIT)
                answers, ended = [json.loads(asked[0])], asked[1]
            case "Count":
                ended = channel.unary_stream(path)(json.dumps(argument).encode(), timeout=LIMIT)
                answers = [json.loads(one) for one in ended]
            case "Talk":
                ended = channel.stream_stream(path)((one.encode() for one in argument), timeout=LIMIT)
                answers = [one.decode() for one in ended]
    except grpc.RpcError as error:
        ended = error
    return {
        "answers": answers,
        "code": ended.code().name,
        "details": ended.details() or "",
        "trailers": {key: value for key, value in ended.trailing_metadata() or () if key.startswith("x-")},
    }


def load(channel: grpc.Channel, seconds: float, rate: float) -> dict[str, Any]:
    """How often each code came; a call is begun at each of its times."""
    begin = time.monotonic()
    calls = []
    hello = channel.unary_unary("/shop.Greeter/Hello")
    for number in range(int(seconds * rate)):
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
        calls.append(hello.future(b'{"name": "load"}', timeout=LIMIT))
    ends = [one.exception() for one in calls]
    codes = Counter(error.code().name if isinstance(error, grpc.RpcError) else "OK" for error in ends)
    return {"codes": codes, "details": sorted({str(error.details()) for error in ends if error})[:5]}


def main(address: str, authority: str, ca: str) -> None:
    options = [("grpc.ssl_target_name_override", authority), ("grpc.enable_retries", 0)]
    credentials = grpc.ssl_channel_credentials(Path(ca).read_bytes())
    with grpc.secure_channel(address, credentials, options) as channel:
        for line in iter(sys.stdin.readline, ""):
            method, *words = json.loads(line)
            result = load(channel, *words) if method == "load" else call(channel, method, *words)
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
