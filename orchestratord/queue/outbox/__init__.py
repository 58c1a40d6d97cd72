"""The outbox: rows that applications commit in their transactions, each of which makes one task.

`outbox_connection` reads the rows and deletes or marks them, `outbox_take` makes tasks of them in
the queue, and `outbox_refusal` notes there which is to be marked; the relay above goes from one to
the other and back. docs/outbox.md tells it in full.
"""
