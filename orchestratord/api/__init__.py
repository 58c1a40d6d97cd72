"""The API: what can be asked of the daemon, over the control socket and TCP.

A request goes from `server` to `api_routes`, which reads it and asks the service; `serialize` makes
the answer's JSON.
"""
