"""`orchestratord import`: endpoint files made from an OpenAPI document.

openapi_document reads it, openapi_operation and security_schemes turn it into the keys of endpoints
and of their API, endpoint_yaml into text; imported_files knows what is there and writes the rest.
"""
