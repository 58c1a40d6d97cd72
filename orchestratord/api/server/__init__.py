"""HTTP as the daemon serves it: sockets, connections, who may ask, and errors as problem+json.

Bytes come in at `server` and `http_connection`; over TCP `guard` lets requests through or not;
`handler` takes them apart for the routes and sends what these answer.
"""
