"""What people do to tasks: retry them, one by one or many, and say how they ended.

`bulk_service` and `task_service` are what the API's routes call; they are parts of the service.
`bulk_runner` takes the steps of each bulk beside the worker, and looks after it until it has ended.
"""
