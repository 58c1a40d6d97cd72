"""HTTP as the daemon serves it: sockets, connections, who may ask, and errors as problem+json.

Bytes come in; checked requests go to the routes of the API and of plugins.
"""
