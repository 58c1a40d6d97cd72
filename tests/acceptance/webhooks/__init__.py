"""Deliveries to a receiver of others, and webhooks written over the API."""
