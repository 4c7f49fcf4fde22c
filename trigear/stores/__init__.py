"""Durable records of jobs. Synchronous; one owner at a time."""
