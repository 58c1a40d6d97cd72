"""`orchestratord import`: endpoint files made from somebody else's description of an API.

document     the file, read and its references followed
schemas      what a schema says of a value
operation    one operation, as the keys of an endpoint
arguments    the parameters of an operation, as templates
content      its body
access       how the API is told who calls
writing      these as commented YAML
folder       what is there already, and what is written
"""
