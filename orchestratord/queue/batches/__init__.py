"""Batches of events that a webhook tells of together: their members, as a transaction writes them.

The session has what a transaction writes of them. When batches close, and what tells of them, is in
`housekeeping`.
"""
