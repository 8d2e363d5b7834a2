"""Many unary calls of gRPC at once, by grpcio, each end in a process of its own.

grpc_crowd.py serve             answers with 30 kB; prints its port
grpc_crowd.py call PORT COUNT   asks with 20 kB, all at once; prints how many were answered
"""

import sys
from concurrent import futures

import grpc

METHOD = "/shop.Greeter/Hello"
REQUEST, RESPONSE = bytes(20_000), bytes(30_000)
LIMIT = 20.0  # seconds for a call


def serve() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    hello = grpc.unary_unary_rpc_method_handler(lambda _request, _context: RESPONSE)
    service, _, method = METHOD[1:].partition("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: hello}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


def call(port: str, count: str) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        hello = channel.unary_unary(METHOD)
        under_way = [hello.future(REQUEST, timeout=LIMIT) for _ in range(int(count))]
        print(sum(one.exception() is None for one in under_way), flush=True)


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](*sys.argv[2:])
