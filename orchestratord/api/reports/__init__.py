"""What the daemon says of all its tasks at once: who fails, what there is, what waits, schedules.

`report_service` is the part of the service that answers it from `queue/reports`; its documents are
described in `report_documents`.
"""
