"""What would happen, without sending anything: one attempt explained, timetables, test cases.

The configuration and a fake answer go into `explain`, which calls the engine's own rules of retry;
a `report` of the request, the decision and what follows comes out. `test_runner` compares it.
"""
