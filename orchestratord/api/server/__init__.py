"""HTTP as the daemon serves it: sockets, connections, who may ask, and errors as problem+json.

Bytes come in; the guard checks who asks; checked requests go through the handler to the routes of
the API and of plugins.
"""
