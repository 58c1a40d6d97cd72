"""Lanes: in which order due tasks are claimed, and how many may be in flight.

The worker asks `lane_set` what to claim; the pipe takes slots from it and tells it what has ended.
`placement` puts keys into lanes by the configuration in force. Nothing here knows of the store.
"""
