"""Clients of a model server, for threads and for asyncio."""
