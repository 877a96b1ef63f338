"""Durable consumers: a cursor in the database, and one session at a time that moves it."""
