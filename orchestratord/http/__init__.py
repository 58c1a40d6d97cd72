"""The HTTP/1.1 client: what goes over the network, on connections of its own.

`api_client` takes an API's request; `client` sends it through `pool`, `connect`, `egress`, `tls`
and `proxy`; `response_parser` gives the answer back.
"""
