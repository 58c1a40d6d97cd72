"""Values that parse and format themselves: durations, status sets, secrets, templates.

They know nothing of orchestratord but its errors. The YAML's texts come in; what the model is made
of goes out.
"""
